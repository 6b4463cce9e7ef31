import { useState } from 'preact/hooks';
import { count, number, plural, steps } from '../format';
import { useView } from '../hooks';
import { explainedBy } from '../models/findings';
import { toggleFinding } from '../view';
import type { Evidence, Finding, Overview } from '../wire';
import { Code } from './Code';
import { Icon, signName } from './Icon';
import { Term } from './Tip';

interface Props {
  finding: Finding;
  overview: Overview;
  /** None of the run's findings is graver, so this one is open even where it is a note. */
  grave: boolean;
}

/** One finding. Errors and warnings are open: what is wrong and what to do is read without a click. */
export function FindingCard({ finding, overview, grave }: Props) {
  const chosen = useView((v) => v.finding === finding.rule);
  const { severity, title, layers, first_step, last_step } = finding;
  // Only at first: from then on it is the reader who opens and closes.
  const [opened] = useState(severity !== 'info' || grave || chosen);
  const symptoms = explainedBy(finding, overview.findings);
  const where = [
    layers.length
      ? layers.length === overview.layers.length
        ? `all ${plural(layers.length, 'layer')}`
        : `${layers.length} of ${plural(overview.layers.length, 'layer')}`
      : '',
    first_step !== null ? `since step ${count(first_step)}` : '',
    first_step !== null && last_step !== null && last_step !== overview.last_step
      ? `to step ${count(last_step)}`
      : '',
  ].filter(Boolean);
  return (
    <details
      class={`card panel ${severity} ${chosen ? 'chosen' : ''}`}
      open={opened}
      id={`finding-${finding.rule}`}
    >
      <summary>
        <Icon sign={severity} size={18} />
        <h3>{title}</h3>
        <span class="where">
          <b class={`badge ${severity}`}>{signName(severity)}</b>
          {where.map((part) => (
            <span key={part}>{part}</span>
          ))}
        </span>
      </summary>
      <div class="card-body">
        <div class="card-text">
          <p class="summary">{finding.summary}</p>
          <EvidenceTable
            evidence={Object.values(finding.evidence).filter(({ value }) => value !== null)}
            finding={finding}
          />
          {symptoms.length > 0 && (
            <div class="ruled">
              <h4>Explains</h4>
              <ul>
                {symptoms.map((symptom) => (
                  <li key={symptom.rule}>
                    <b>{symptom.title}</b> {symptom.summary}
                  </li>
                ))}
              </ul>
            </div>
          )}
          {finding.ruled_out.length > 0 && (
            <div class="ruled">
              <h4>Ruled out</h4>
              <ul>
                {finding.ruled_out.map(({ cause, reason }) => (
                  <li key={cause}>
                    <b>{cause}</b> {reason}
                  </li>
                ))}
              </ul>
            </div>
          )}
        </div>
        <div class="card-fix">
          {finding.fix && <Code title="Fix" text={finding.fix.trimEnd()} name={`the fix for: ${title}`} />}
          {finding.next && (
            <p class="next">
              <b>Then</b> {finding.next}
            </p>
          )}
          <button
            type="button"
            class="button light"
            aria-pressed={chosen}
            onClick={() => toggleFinding(finding.rule)}
            data-tip="Lights up this finding’s layers and steps in the charts, the heatmap and the table."
          >
            {chosen ? 'Shown in all views' : 'Show in all views'}
          </button>
        </div>
      </div>
    </details>
  );
}

function EvidenceTable({ evidence, finding }: { evidence: Evidence[]; finding: Finding }) {
  if (!evidence.length && finding.steps_to_converge === null) return null;
  return (
    <table class="evidence">
      <thead>
        <tr>
          <th scope="col">Evidence</th>
          <th
            scope="col"
            data-tip="As measured over the last records and probes, in the unit beside it; without one it is a ratio, a share or a loss, as its name says."
          >
            value
          </th>
          <th scope="col" data-tip="Where this rule decides; empty for numbers that it only tells.">
            limit
          </th>
        </tr>
      </thead>
      <tbody>
        {finding.steps_to_converge !== null && (
          <tr>
            <th scope="row">
              <Term k="steps">Steps to converge</Term>
            </th>
            <td>
              {steps(finding.steps_to_converge)}
              {finding.steps_to_converge !== 'never' && <span class="unit"> updates</span>}
            </td>
            <td />
          </tr>
        )}
        {evidence.map(({ label, value, limit, unit }) => (
          <tr key={label} data-tip={finding.description}>
            <th scope="row">{label}</th>
            <td class={typeof value === 'string' ? 'words' : ''}>
              {typeof value === 'string' ? value : number(value)}
              {unit && value !== null && <span class="unit"> {unit}</span>}
            </td>
            <td class="limit">{limit === null ? '' : typeof limit === 'string' ? limit : number(limit)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
