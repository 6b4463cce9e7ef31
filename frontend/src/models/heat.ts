import type { HeatRow } from '../link';
import { apart } from './extent';

/** A layers x steps matrix, row-major by record, as the `series` route sends it. */
export interface Heat {
  x: Float64Array;
  values: ArrayLike<number>;
  layers: number;
}

/** A logarithmic colour scale. */
export interface HeatScale {
  low: number;
  high: number;
  /** 1 is agreement and lies in the middle; what is below and what is above it differ in kind. Else the sign is dropped. */
  diverging?: boolean;
}

/**
 * Below `low` nothing is wrong yet; above `high` it does not get worse to look at. The mean error has a sign too, but one
 * that says nothing of a layer: channels of both signs cancel (in the demos the signed median is 5 to 26% of the 95th
 * percentile of sizes, and the sign of the worst channel flips in up to a fifth of the records).
 */
const BOUNDS: Record<HeatRow, HeatScale> = {
  distance_rms: { low: 0.01, high: 1 },
  steps_to_converge: { low: 10, high: 10000 },
  mean_error_p95: { low: 0.01, high: 10 },
  variance_error_p95: { low: 0.01, high: 100 },
  variance_ratio: { low: 0.01, high: 100, diverging: true },
};

export function heatScale(row: HeatRow): HeatScale {
  return BOUNDS[row];
}

/** Place on the colour scale, 0 to 1; NaN where not measured, 2 for never (infinite). */
export function shade(value: number, { low, high, diverging }: HeatScale): number {
  if (Number.isNaN(value)) return Number.NaN;
  if (!Number.isFinite(value)) return 2;
  const size = diverging ? value : Math.abs(value);
  if (size <= low) return 0;
  return Math.min(1, Math.log(size / low) / Math.log(high / low));
}

/** How far from right a value is, of two on the same scale the greater. */
function badness(value: number, diverging: boolean): number {
  if (!diverging) return Math.abs(value);
  return value < 1 ? 1 / value : value;
}

/**
 * The records behind each pixel column: [first, end). A record holds from its own x to the next one's, so a column
 * between two records shows the earlier, and a column over many shows them all. The last one holds until `until`.
 */
export function columns(x: Float64Array, from: number, to: number, width: number, until: number): Int32Array {
  const bounds = new Int32Array(width * 2);
  let start = 0;
  for (let column = 0; column < width; column++) {
    const left = from + ((to - from) * column) / width;
    const right = from + ((to - from) * (column + 1)) / width;
    while (start + 1 < x.length && x[start + 1] <= left) start++;
    let end = start + 1;
    while (end < x.length && x[end] < right) end++;
    const empty = !x.length || right <= x[0] || left >= until;
    bounds[2 * column] = start;
    bounds[2 * column + 1] = empty ? start : end;
  }
  return bounds;
}

/** Where the last record ends: nothing says, so it gets a hundredth of the run. */
export function lastEnd(x: Float64Array): number {
  const last = x.length - 1;
  if (last < 0) return 1;
  return last > 0 && x[last] > x[0] ? x[last] + (x[last] - x[0]) / 100 : apart(x[last], x[last])[1];
}

/** The worst value among records [first, end) of a layer, so that no spike is lost between pixels. */
export function peak(heat: Heat, layer: number, first: number, end: number, diverging = false): number {
  let found = Number.NaN;
  let worst = -1;
  for (let record = first; record < end; record++) {
    const value = heat.values[record * heat.layers + layer];
    const size = badness(value, diverging);
    if (size > worst) {
      found = value;
      worst = size;
    }
  }
  return found;
}

/** The layers of `order` behind each pixel row: [first, end), several where there are more layers than pixels. */
export function layerRows(layers: number, height: number): Int32Array {
  const rows = Math.max(1, Math.min(layers, height));
  return Int32Array.from({ length: rows + 1 }, (_, row) => Math.floor((row * layers) / rows));
}

/** Of the layers at [first, end) of `order` the place of the one with the worst value among some records. */
export function worstRow(
  heat: Heat,
  order: readonly number[],
  [first, end]: readonly [number, number],
  [from, to]: readonly [number, number],
  diverging = false,
): number {
  let found = first;
  let worst = -1;
  for (let row = first; row < end; row++) {
    const size = badness(peak(heat, order[row], from, to, diverging), diverging);
    if (size > worst) {
      found = row;
      worst = size;
    }
  }
  return found;
}

const TALLEST = 600;

/** Height of a row in CSS pixels: few layers get tall rows, many share the height there is, thousands a pixel. */
export function rowHeight(layers: number): number {
  const shared = Math.floor(420 / Math.max(layers, 1));
  return Math.min(22, Math.max(2, shared), TALLEST / Math.max(layers, 1));
}
