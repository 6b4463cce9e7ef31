import { plural } from '../format';
import { counting, hasAnotherCause, isSilenced } from '../models/findings';
import { diagnosisPage } from '../project';
import type { Finding, Overview } from '../wire';
import { FindingCard } from './FindingCard';
import { Icon, type Sign } from './Icon';

export function FindingCards({ overview }: { overview: Overview }) {
  const { findings } = overview;
  const open = counting(findings);
  const worst = open[0]?.severity;
  const having = (status: Finding['status']) => findings.filter((f) => f.status === status);
  const folded: [Sign, string, Finding[]][] = [
    ['error', 'could not be checked', having('error')],
    ['another_cause', 'with another cause', findings.filter(hasAnotherCause)],
    ['silenced', 'silenced', findings.filter(isSilenced)],
    ['not_evaluated', 'not evaluated', having('not_evaluated')],
    ['not_applicable', 'not applicable', having('not_applicable')],
    ['pass', 'passed', having('pass')],
  ];
  return (
    <section class="findings" aria-label="Findings">
      <h2 class="section">
        Findings
        <span class="muted"> {summary(open)}</span>
      </h2>
      {open.map((finding) => (
        <FindingCard
          key={finding.rule}
          finding={finding}
          overview={overview}
          grave={finding.severity === worst}
        />
      ))}
      <div class="folds">
        {folded
          .filter(([, , list]) => list.length)
          .map(([sign, name, list]) => (
            <details key={name} class="fold">
              <summary>
                <Icon sign={sign} size={14} />
                {list.length} {name}
              </summary>
              <dl>
                {list.map((finding) => (
                  <div key={finding.rule}>
                    <dt data-tip={finding.description}>
                      <a href={diagnosisPage(finding.rule)} target="_blank" rel="noopener noreferrer">
                        {finding.title}
                      </a>
                    </dt>
                    <dd>
                      {finding.explained_by && <b>Cause: {titleOf(finding.explained_by, findings)}. </b>}
                      {finding.summary}
                    </dd>
                  </div>
                ))}
              </dl>
            </details>
          ))}
      </div>
    </section>
  );
}

function summary(open: readonly Finding[]): string {
  if (!open.length) return 'none';
  const size = (severity: Finding['severity']) => open.filter((f) => f.severity === severity).length;
  return [
    [size('error'), 'error'] as const,
    [size('warning'), 'warning'] as const,
    [size('info'), 'note'] as const,
  ]
    .filter(([n]) => n)
    .map(([n, noun]) => plural(n, noun))
    .join(', ');
}

function titleOf(rule: string, findings: readonly Finding[]): string {
  return findings.find((f) => f.rule === rule)?.title ?? rule;
}
