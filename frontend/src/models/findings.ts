import type { Evidence, Finding, Overview, Severity } from '../wire';

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

/** The finding whose rescue and fix stand beside the verdict: the worst one, where it does harm. */
export function leading(findings: readonly Finding[]): Finding | null {
  const [worst] = counting(findings);
  return worst && worst.severity !== 'info' ? worst : null;
}

/** Findings whose cause is the given one. */
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

const KEY_FIGURES = 3;

/** The figures that decide a finding: steps to converge, its share of the gap, then numbers that are compared with another one. */
export function keyFigures(finding: Finding): ('steps' | 'share' | Evidence)[] {
  const measured = Object.values(finding.evidence).filter(({ value }) => value !== null);
  const deciding = measured.filter(({ limit }) => limit !== null);
  const others = measured.filter(({ limit }) => limit === null);
  return [
    ...(finding.steps_to_converge === null ? [] : (['steps'] as const)),
    ...(finding.share === null ? [] : (['share'] as const)),
    // The same number as the steps.
    ...deciding.filter(({ label }) => !/^steps to converge/.test(label)),
    ...others,
  ].slice(0, KEY_FIGURES);
}

export type RunSign = Severity | 'silenced' | 'not_evaluated';

interface Judged {
  severity: Severity;
  silenced: number;
  batch: number | null;
  inference: number | null;
}

/**
 * What stands beside a verdict. A tick says that nothing was found where everything was measured: it is for a run with
 * both losses and no silenced failure.
 */
export function signOf({ severity, silenced, batch, inference }: Judged): RunSign {
  if (severity !== 'none') return severity;
  if (silenced) return 'silenced';
  return inference === null || batch === null ? 'not_evaluated' : 'none';
}

export function runSign({ severity, findings, losses }: Overview): RunSign {
  return signOf({ severity, silenced: findings.filter(isSilenced).length, ...losses });
}
