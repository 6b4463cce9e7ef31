import type { Known } from '../summaries';
import type { RunEntry, RunSummary } from '../wire';
import { type End, endOf } from './end';
import { type RunSign, signOf } from './findings';

/** A row of the table of runs. */
export interface RunRow {
  entry: RunEntry;
  summary: RunSummary | null;
  error: string | null;
}

/** Null until the run was analysed. */
export function rowSign({ summary }: Pick<RunRow, 'summary'>): RunSign | null {
  return summary && signOf(summary);
}

/** How a run ended; null until it was analysed. */
export function rowEnd({ summary }: Pick<RunRow, 'summary'>, now: number): End | null {
  return summary && endOf(summary, now);
}

export type RunKey =
  | 'severity'
  | 'run'
  | 'cause'
  | 'batch'
  | 'inference'
  | 'harm'
  | 'metric'
  | 'momentum'
  | 'step'
  | 'ended';

const RANK: Record<RunSign, number> = {
  error: 6,
  warning: 5,
  info: 4,
  silenced: 3,
  not_evaluated: 2,
  none: 1,
};

const VALUE: Record<RunKey, (row: RunRow) => number | string | null> = {
  severity: (row) => RANK[rowSign(row) ?? 'none'] * (row.summary ? 1 : 0),
  run: ({ entry }) => entry.run,
  cause: ({ summary }) => summary?.cause ?? null,
  batch: ({ summary }) => summary?.batch ?? null,
  inference: ({ summary }) => summary?.inference ?? null,
  harm: ({ summary }) => summary?.harm ?? (isBeyondMeasure(summary) ? Infinity : null),
  metric: ({ summary }) => summary?.metric?.inference ?? null,
  momentum: ({ summary }) => summary?.momentum[1] ?? null,
  step: ({ entry }) => entry.last_step,
  ended: (row) => rowEnd(row, Date.now() / 1000),
};

/** Whether inference has no finite loss where batch statistics have one: no harm is greater. */
function isBeyondMeasure(summary: RunRow['summary']): boolean {
  return summary !== null && summary.inference === null && summary.batch !== null;
}

export interface RunSort {
  key: RunKey;
  descending: boolean;
}

/** Sorted; what has no value comes last in either direction, and what is equal by harm and name. */
export function sortRuns(rows: readonly RunRow[], { key, descending }: RunSort): RunRow[] {
  const value = VALUE[key];
  const sign = descending ? -1 : 1;
  const order = (x: number | string | null, y: number | string | null, direction: number) => {
    if (x === y) return 0;
    if (x === null || y === null) return x === null ? 1 : -1;
    return x < y ? -direction : direction;
  };
  return rows
    .slice()
    .sort(
      (a, b) =>
        order(value(a), value(b), sign) ||
        order(VALUE.harm(a), VALUE.harm(b), -1) ||
        order(a.entry.run, b.entry.run, 1),
    );
}

export function runRow(entry: RunEntry, known: Known): RunRow {
  return { entry, ...known };
}
