import { number } from '../format';
import { leading } from '../models/findings';
import { origin } from '../models/losses';
import type { Overview } from '../wire';
import { Code } from './Code';

/** What to do about the finding that leads: with the model there is, and in the next training. */
export function Actions({ overview }: { overview: Overview }) {
  const finding = leading(overview.findings);
  if (!finding) return null;
  const { losses } = overview;
  const { rescue, rescue_loss, fix, next, title } = finding;
  if (!rescue && !fix) return null;
  return (
    <div class="actions" role="group" aria-label="What to do">
      {rescue && (
        <div>
          <Code
            title="What to do now: rescue this model"
            text={rescue.trimEnd()}
            name={`rescue code: ${title}`}
          />
          {rescue_loss !== null && (
            <p class="promise">
              Inference loss <b>{number(rescue_loss)}</b>
              {losses.batches === null
                ? ', measured (median of the last probes).'
                : ` instead of ${number(losses.inference)}, measured (${origin(losses)}).`}
            </p>
          )}
        </div>
      )}
      {fix && (
        <div>
          <Code title={rescue ? 'Next training' : 'What to do'} text={fix.trimEnd()} name={`fix: ${title}`} />
          {next && <p class="promise">Expect: {next}</p>}
        </div>
      )}
    </div>
  );
}
