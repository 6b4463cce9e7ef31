import { number } from '../format';
import { runSign } from '../models/findings';
import { updates } from '../models/momentum';
import type { Losses, Overview } from '../wire';
import { Actions } from './Actions';
import { Icon } from './Icon';
import { LossTable } from './LossTable';
import { RunEnd } from './RunEnd';
import { Term } from './Tip';

/** What the run's losses say, what to do about it, and the numbers behind both. */
export function Verdict({ overview }: { overview: Overview }) {
  const { losses, headline, reasons, last_step, layers } = overview;
  const sign = runSign(overview);
  const frozen = layers.some((layer) => !updates(layer));
  const calm = sign === 'none' || sign === 'info';
  const measured = losses.step !== null;
  const reason = Object.values(losses.not_evaluated)[0];
  const said = [headline, ...reasons].join(' ');
  return (
    <section class={`panel verdict ${sign}`} aria-label="Verdict">
      <div class="verdict-head">
        <Icon sign={sign} size={26} />
        <div>
          <h1>
            {headline}
            {reasons.length > 0 && <span class="rest"> {reasons.join(' ')}</span>}
          </h1>
          <RunEnd overview={overview} />
        </div>
      </div>
      <Actions overview={overview} />
      {!measured && reason && !said.includes(reason) && <p class="hint">{reason}</p>}
      {measured && <LossTable losses={losses} frozen={frozen} calm={calm} title="Training data" />}
      <Harm losses={losses} />
      {losses.validation && losses.validation.step !== null && (
        <LossTable losses={losses.validation} frozen={frozen} calm={calm} title="Validation data" />
      )}
      {last_step !== null && losses.step !== null && losses.step < last_step && (
        <p class="hint">
          The losses are from step {number(losses.step)}; the last record is from step {number(last_step)}.
        </p>
      )}
    </section>
  );
}

/** What the severity goes by: the order of two losses of different runs does not tell it. */
function Harm({ losses: { harm, harm_is_sure, rival, rival_loss } }: { losses: Losses }) {
  if (harm == null) return null;
  return (
    <p class="hint">
      <Term k="harm">Harm</Term> <b>{number(harm)}</b>
      {harm > 0 && !harm_is_sure && ' (may be chance)'} against {rival}
      {rival_loss != null && ` (${number(rival_loss)})`}.
      {harm >= 0.1 && ' A warning from 0.5, an error from 1.'}
    </p>
  );
}
