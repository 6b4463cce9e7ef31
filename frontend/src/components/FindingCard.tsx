import { useState } from 'preact/hooks';
import { count, plural } from '../format';
import { useView } from '../hooks';
import { explainedBy, leading } from '../models/findings';
import { diagnosisPage } from '../project';
import { toggleFinding } from '../view';
import type { Finding, Overview } from '../wire';
import { Code } from './Code';
import { EvidenceTable } from './EvidenceTable';
import { Icon, signName } from './Icon';
import { KeyFigures } from './KeyFigures';

interface Props {
  finding: Finding;
  overview: Overview;
  /** It has the highest severity of the run, so it is open even where it is a note. */
  grave: boolean;
}

/** One finding: what is wrong, the three figures that decide, what to do; the rest is folded. */
export function FindingCard({ finding, overview, grave }: Props) {
  const chosen = useView((v) => v.finding === finding.rule);
  const { severity, title, layers, first_step, last_step, rescue, fix } = finding;
  const evidence = Object.values(finding.evidence).filter(({ value }) => value !== null);
  // Later only the reader opens and closes it.
  const [opened] = useState(severity !== 'info' || grave || chosen);
  // The verdict has the code of the finding that leads.
  const above = leading(overview.findings) === finding;
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
          <KeyFigures finding={finding} />
          {finding.next && !above && (
            <p class="next">
              <b>What to expect:</b> {finding.next}
            </p>
          )}
        </div>
        {(rescue || fix) && !above && (
          <div class="card-fix">
            {rescue && (
              <Code title="Rescue this model" text={rescue.trimEnd()} name={`rescue code: ${title}`} />
            )}
            {fix && (
              <Code title={rescue ? 'Next training' : 'Fix'} text={fix.trimEnd()} name={`fix: ${title}`} />
            )}
          </div>
        )}
        <div class="card-more">
          <button
            type="button"
            class="button small"
            aria-pressed={chosen}
            onClick={() => toggleFinding(finding.rule)}
            data-tip="Highlights the layers and steps of this finding in the charts, the heatmap and the table."
          >
            {chosen ? 'Highlighted' : 'Highlight'}
          </button>
          {evidence.length > 0 && (
            <details>
              <summary>Evidence ({evidence.length})</summary>
              <EvidenceTable evidence={evidence} />
            </details>
          )}
          {finding.ruled_out.length > 0 && (
            <Reasons
              name="Ruled out"
              reasons={finding.ruled_out.map(({ cause, reason }) => [cause, reason])}
            />
          )}
          {symptoms.length > 0 && (
            <Reasons name="Also explains" reasons={symptoms.map((f) => [f.title, f.summary])} />
          )}
          <details>
            <summary>About this check</summary>
            <p>{finding.description}</p>
          </details>
          <a href={diagnosisPage(finding.rule)} target="_blank" rel="noopener noreferrer">
            Documentation
          </a>
        </div>
      </div>
    </details>
  );
}

function Reasons({ name, reasons }: { name: string; reasons: readonly (readonly [string, string])[] }) {
  return (
    <details class="ruled">
      <summary>
        {name} ({reasons.length})
      </summary>
      <ul>
        {reasons.map(([what, why]) => (
          <li key={what}>
            <b>{what}:</b> {why}
          </li>
        ))}
      </ul>
    </details>
  );
}
