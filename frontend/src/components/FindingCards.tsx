import { plural } from '../format';
import type { Finding, Overview } from '../wire';
import { FindingCard } from './FindingCard';
import { Icon, type Sign } from './Icon';

const ORDER = { error: 0, warning: 1, info: 2, none: 3 } as const;

export function FindingCards({ overview }: { overview: Overview }) {
  const { findings } = overview;
  const open = findings
    .filter((f) => f.status === 'fail' && !f.silenced && !f.explained_by)
    .sort((a, b) => ORDER[a.severity] - ORDER[b.severity]);
  const worst = open[0]?.severity;
  const folded: [Sign, string, Finding[]][] = [
    ['error', 'could not run', findings.filter((f) => f.status === 'error')],
    ['not_evaluated', 'not evaluated', findings.filter((f) => f.status === 'not_evaluated')],
    ['not_applicable', 'not applicable', findings.filter((f) => f.status === 'not_applicable')],
    [
      'info',
      'explained by another finding',
      findings.filter((f) => f.status === 'fail' && f.explained_by && !f.silenced),
    ],
    ['silenced', 'silenced', findings.filter((f) => f.status === 'fail' && f.silenced)],
    ['pass', 'passed', findings.filter((f) => f.status === 'pass')],
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
                    <dt data-tip={finding.description}>{finding.title}</dt>
                    <dd>{finding.summary}</dd>
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
  if (!open.length) return 'none: no rule failed';
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
