import { count, momentumRange, percent, plural } from '../format';
import { updates } from '../models/momentum';
import type { Overview } from '../wire';

/** What is known before the first record: the layers, and what their momentum alone says. */
export function Began({ overview: { layers, planned_steps, tolerance, framework } }: { overview: Overview }) {
  const values = layers.filter(updates).map(({ momentum }) => momentum);
  if (!values.length) return null;
  const slowest = Math.max(...values);
  const needed = slowest > 0 && slowest < 1 ? Math.ceil(Math.log(tolerance) / Math.log(slowest)) : null;
  return (
    <section class="panel" aria-label="Before the first record">
      <dl class="figures">
        <div>
          <dt>BatchNorm</dt>
          <dd>{plural(layers.length, 'layer')}</dd>
        </div>
        <div>
          <dt>momentum</dt>
          <dd>{momentumRange([Math.min(...values), slowest], framework)}</dd>
        </div>
        {needed !== null && (
          <div>
            <dt>updates until {percent(tolerance)} of the initial statistics is left</dt>
            <dd>
              {count(needed)}
              {planned_steps !== null && <span class="unit"> of {count(planned_steps)} planned</span>}
            </dd>
          </div>
        )}
      </dl>
      <p class="hint">This follows from the momentum alone. The verdict comes with the first records.</p>
    </section>
  );
}
