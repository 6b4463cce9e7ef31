/**
 * Exponential moving average with its start bias removed, as TensorBoard smooths scalars. Gaps stay gaps.
 * On a log axis the logarithm is smoothed: otherwise one early decade would hide every later one.
 */
export function smooth(values: readonly (number | null)[], weight: number, log: boolean): (number | null)[] {
  if (weight <= 0) return values.slice();
  let sum = 0;
  let norm = 0;
  return values.map((value) => {
    if (value === null || (log && value <= 0)) return null;
    sum = weight * sum + (1 - weight) * (log ? Math.log(value) : value);
    norm = weight * norm + (1 - weight);
    return log ? Math.exp(sum / norm) : sum / norm;
  });
}
