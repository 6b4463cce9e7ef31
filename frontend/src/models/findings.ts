import type { Finding, Overview, Severity } from '../wire';

/** It failed, nobody silenced it, and no other finding is its cause: this alone decides the severity of a run. */
export function counts(finding: Finding): boolean {
  return finding.status === 'fail' && !finding.silenced && !finding.explained_by;
}

/** It failed, and another finding of the run is the cause. */
export function hasAnotherCause({ status, explained_by, silenced }: Finding): boolean {
  return !silenced && (status === 'another_cause' || (status === 'fail' && Boolean(explained_by)));
}

/** It failed, and `ignore=` silences it for all its layers. */
export function isSilenced({ status, silenced }: Finding): boolean {
  return silenced && (status === 'fail' || status === 'another_cause');
}

const WORST_FIRST: Record<Severity, number> = { error: 0, warning: 1, info: 2, none: 3 };

/** The findings that count, worst first; of one severity in the order of the report. */
export function counting(findings: readonly Finding[]): Finding[] {
  return findings.filter(counts).sort((a, b) => WORST_FIRST[a.severity] - WORST_FIRST[b.severity]);
}

/** Findings of which the one given is the cause. */
export function explainedBy(cause: Finding, findings: readonly Finding[]): Finding[] {
  return findings.filter((f) => hasAnotherCause(f) && f.explained_by === cause.rule);
}

/** The fixes of the findings that count, as one Python file. */
export function fixFile(findings: readonly Finding[]): string {
  return counting(findings)
    .filter(({ fix }) => fix)
    .map(({ title, fix }) => `# ${title}\n${fix.trimEnd()}\n`)
    .join('\n');
}

/**
 * What stands beside a verdict. A tick says that nothing was found where everything was measured: it is for a run with
 * both losses and no silenced failure.
 */
export function runSign({
  severity,
  findings,
  losses,
}: Pick<Overview, 'severity' | 'findings' | 'losses'>): Severity | 'silenced' | 'not_evaluated' {
  if (severity !== 'none') return severity;
  if (findings.some(isSilenced)) return 'silenced';
  return losses.inference === null || losses.batch === null ? 'not_evaluated' : 'none';
}
