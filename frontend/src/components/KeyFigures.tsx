import { interval, intervalText, percent, steps } from '../format';
import { keyFigures } from '../models/findings';
import type { Finding } from '../wire';
import { written } from './EvidenceTable';
import { Term } from './Tip';

/** The three figures that decide a finding. */
export function KeyFigures({ finding }: { finding: Finding }) {
  const figures = keyFigures(finding);
  if (!figures.length) return null;
  return (
    <dl class="figures key-figures">
      {figures.map((figure) => {
        if (figure === 'steps') return <StepsFigure key="steps" finding={finding} />;
        if (figure === 'share')
          return (
            <div key="share">
              <dt>Share of the loss gap</dt>
              <dd>{percent(finding.share)}</dd>
            </div>
          );
        const { label, value, limit, unit, against } = figure;
        return (
          <div key={label}>
            <dt>{label}</dt>
            <dd class={typeof value === 'string' && !/^[\d.]+$/.test(value) ? 'words' : ''}>
              {written(value)}
              {unit && <span class="unit"> {unit}</span>}
              {limit !== null && (
                <span class="unit">
                  {' '}
                  ({against} {written(limit)})
                </span>
              )}
            </dd>
          </div>
        );
      })}
    </dl>
  );
}

function StepsFigure({ finding }: { finding: Finding }) {
  const { steps_to_converge, steps_interval, steps_reliable } = finding;
  return (
    <div>
      <dt>
        <Term k="steps_needed" />
      </dt>
      <dd>
        {steps(steps_to_converge)}
        {typeof steps_to_converge === 'number' && <span class="unit"> steps</span>}
        {interval(steps_interval) && (
          <span class="unit" data-tip={intervalText(steps_interval)}>
            {' '}
            ({interval(steps_interval)})
          </span>
        )}
        {steps_reliable === false && <span class="unit"> (not reliable yet)</span>}
      </dd>
    </div>
  );
}
