/** An SVG path of one layer's values over the records; empty where there is nothing to draw. */
export function sparkPath(
  values: ArrayLike<number>,
  stride: number,
  offset: number,
  width: number,
  height: number,
): string {
  const total = Math.floor(values.length / stride);
  if (total < 2) return '';
  const points = Math.min(total, width);
  let high = 0;
  for (let i = 0; i < total; i++) {
    const value = values[i * stride + offset];
    if (Number.isFinite(value) && value > high) high = value;
  }
  if (!high) high = 1;
  let path = '';
  let pen = 'M';
  for (let p = 0; p < points; p++) {
    const record = Math.round((p * (total - 1)) / (points - 1));
    const value = values[record * stride + offset];
    if (!Number.isFinite(value)) {
      pen = 'M';
      continue;
    }
    const x = (p * width) / (points - 1);
    const y = height - 1 - (value / high) * (height - 2);
    path += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
    pen = 'L';
  }
  return path;
}
