export type ScaleKind = 'linear' | 'log' | 'asinh';

const DECADES_FOR_LOG = 1.3;

/**
 * A log axis where the values span more than a decade and a bit; asinh where some are not positive, since a loss
 * may be negative.
 */
export function scaleFor(values: Iterable<number | null>): ScaleKind {
  let low = Number.POSITIVE_INFINITY;
  let high = 0;
  let positive = true;
  for (const value of values) {
    if (value === null || !Number.isFinite(value)) continue;
    const size = Math.abs(value);
    if (value <= 0) positive = false;
    if (size > 0 && size < low) low = size;
    if (size > high) high = size;
  }
  if (!(high > 0) || Math.log10(high / low) < DECADES_FOR_LOG) return 'linear';
  return positive ? 'log' : 'asinh';
}
