import type { PairedLosses } from '../wire';

export type Part = 'dropout' | 'noise' | 'stale';

export interface Segment {
  part: Part;
  /** Signed difference of two losses. */
  value: number;
  /** Share of the sum of the parts' sizes, 0 to 1. */
  share: number;
}

export const PARTS: readonly Part[] = ['dropout', 'noise', 'stale'];

/** The three differences that lead from the training loss to the inference loss, as far as they were measured. */
export function decompose(losses: PairedLosses): Segment[] {
  const known = PARTS.flatMap((part) => {
    const value = losses[part];
    return value === null || !Number.isFinite(value) ? [] : [{ part, value }];
  });
  const total = known.reduce((sum, { value }) => sum + Math.abs(value), 0);
  return known.map(({ part, value }) => ({ part, value, share: total ? Math.abs(value) / total : 0 }));
}

/** Of the larger of the two losses: differences below it are not worth a picture. */
const SMALL = 0.1;

/** Whether the parts are small beside the losses themselves. */
export function isSmall(losses: PairedLosses, segments: readonly Segment[]): boolean {
  const scale = Math.max(Math.abs(losses.batch ?? 0), Math.abs(losses.inference ?? 0));
  return segments.every(({ value }) => Math.abs(value) <= SMALL * scale);
}
