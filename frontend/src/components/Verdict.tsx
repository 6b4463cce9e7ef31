import { number, plural, signed } from '../format';
import { decompose, isSmall } from '../models/decomposition';
import { runSign } from '../models/findings';
import { updates } from '../models/momentum';
import type { Overview, PairedLosses } from '../wire';
import { trainingOnly } from '../words';
import { Icon } from './Icon';
import { LastRecord } from './LastRecord';
import { LossBar } from './LossBar';
import { Num, Term } from './Tip';

const STEPS = [
  { from: 'training', part: 'dropout', to: 'batch' },
  { from: 'batch', part: 'noise', to: 'recalibrated' },
  { from: 'recalibrated', part: 'stale', to: 'inference' },
] as const;

export function Verdict({ overview }: { overview: Overview }) {
  const { losses, headline, reasons, last_step, layers } = overview;
  const sign = runSign(overview);
  const frozen = layers.some((layer) => !updates(layer));
  return (
    <section class={`panel verdict ${sign}`} aria-label="Verdict">
      <div class="verdict-head">
        <Icon sign={sign} size={26} />
        <h1>
          {headline}
          {reasons.length > 0 && <span class="rest"> {reasons.join(' ')}</span>}
        </h1>
      </div>
      {losses.step === null ? (
        Object.values(losses.not_evaluated)
          .slice(0, 1)
          .map((why) => (
            <p class="hint" key={why}>
              {why}
            </p>
          ))
      ) : (
        <LossChain losses={losses} frozen={frozen} title="Losses on one training batch" />
      )}
      {losses.validation && (
        <LossChain losses={losses.validation} frozen={frozen} title="Losses on one validation batch" />
      )}
      {last_step !== null && losses.step !== null && losses.step !== last_step && (
        <p class="hint">
          The last losses are from step {number(losses.step)}; the last record is from step{' '}
          {number(last_step)}.
        </p>
      )}
      <LastRecord overview={overview} />
    </section>
  );
}

/** From the batch loss to the training loss on one side and to the inference loss on the other. */
function LossChain({ losses, frozen, title }: { losses: PairedLosses; frozen: boolean; title: string }) {
  const segments = decompose(losses);
  const missing = Object.keys(losses.not_evaluated).length;
  return (
    <div class="chain" role="group" aria-label={title}>
      <p class="chain-title">
        {title}
        {losses.step !== null && `, step ${number(losses.step)}`}
        {missing > 0 && ` · ${plural(missing, 'loss')} not evaluated`}
      </p>
      <div class="chain-row">
        <LossTile losses={losses} kind="training" />
        {STEPS.map(({ part, to }) => (
          <>
            <div class={`link ${part} ${part === 'dropout' ? 'back' : ''}`} key={part}>
              <span class="delta">
                <Num k={part}>{signed(losses[part])}</Num>
              </span>
              <span class="arrow" aria-hidden="true" />
              <Term k={part}>{part === 'dropout' ? trainingOnly(frozen) : undefined}</Term>
            </div>
            <LossTile losses={losses} kind={to} key={to} />
          </>
        ))}
      </div>
      {!isSmall(losses, segments) && <LossBar segments={segments} frozen={frozen} />}
    </div>
  );
}

function LossTile({
  losses,
  kind,
}: {
  losses: PairedLosses;
  kind: 'training' | 'batch' | 'recalibrated' | 'inference';
}) {
  // Statistics at the current weights, where they were measured, leave out the drift of the last windows.
  const now = kind === 'recalibrated' ? losses.recalibrated_now : null;
  const value = now ?? losses[kind];
  const why = losses.not_evaluated[kind] ?? losses.not_evaluated.losses;
  const overflowed = losses.overflowed.includes(kind);
  return (
    <div class={`tile ${kind}`}>
      <span class="tile-name">
        <i aria-hidden="true" />
        <Term k={now === null ? kind : 'recalibrated_now'} />
      </span>
      <span class="tile-value">
        {value === null && (why || overflowed) ? (
          <span class="muted small" data-tip={why ?? 'The measured loss is infinite or not a number.'}>
            {overflowed ? 'not finite' : 'not evaluated'}
          </span>
        ) : (
          <Num k={now === null ? kind : 'recalibrated_now'}>{number(value)}</Num>
        )}
      </span>
    </div>
  );
}
