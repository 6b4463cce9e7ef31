import type { XAxis } from '../link';

/** Where the steps of one run lie on an x axis: pairs of step and wall time, in order. */
export class Clock {
  constructor(
    private readonly steps: ArrayLike<number>,
    private readonly times: ArrayLike<number>,
    /** Wall time of the start of the run, s since 1970. */
    readonly start: number = times.length ? times[0] : 0,
  ) {}

  /** The position of a record on the axis: step, seconds since the start, or seconds since 1970. */
  at(index: number, axis: XAxis): number {
    if (axis === 'step') return this.steps[index];
    return axis === 'wall' ? this.times[index] : this.times[index] - this.start;
  }

  all(axis: XAxis): Float64Array {
    return Float64Array.from({ length: this.steps.length }, (_, i) => this.at(i, axis));
  }

  /** The position of any step, between records or past them (then at the mean pace of the last half). */
  position(step: number, axis: XAxis): number {
    return axis === 'step' ? step : interpolate(this.steps, this.all(axis), step);
  }

  /** The step that lies at a position. */
  step(position: number, axis: XAxis): number {
    return axis === 'step' ? position : interpolate(this.all(axis), this.steps, position);
  }

  /** The step of the record nearest to a position; null without records. */
  nearestStep(position: number, axis: XAxis): number | null {
    const at = nearest(this.all(axis), position);
    return at < 0 ? null : this.steps[at];
  }
}

function interpolate(from: ArrayLike<number>, to: ArrayLike<number>, value: number): number {
  const n = from.length;
  if (n === 0) return Number.NaN;
  if (n === 1) return to[0];
  const after = Math.min(Math.max(upperBound(from, value), 1), n - 1);
  // Past the end a single interval is too noisy to extrapolate from.
  const before = value > from[n - 1] ? Math.min(n >> 1, n - 2) : after - 1;
  const end = value > from[n - 1] ? n - 1 : after;
  const span = from[end] - from[before];
  return span ? to[before] + ((value - from[before]) / span) * (to[end] - to[before]) : to[end];
}

/** First index whose value is greater. */
export function upperBound(sorted: ArrayLike<number>, value: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] > value) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Index of the nearest value, -1 for none. */
export function nearest(sorted: ArrayLike<number>, value: number): number {
  if (!sorted.length) return -1;
  const after = Math.min(upperBound(sorted, value), sorted.length - 1);
  const before = Math.max(after - 1, 0);
  return Math.abs(sorted[before] - value) <= Math.abs(sorted[after] - value) ? before : after;
}

/** Where an arrow key moves the crosshair: `by` records on from the one nearest to it, from the last where there is none. */
export function neighbour(sorted: ArrayLike<number>, at: number | null, by: number): number | null {
  const last = sorted.length - 1;
  if (last < 0) return null;
  const from = at === null ? last : nearest(sorted, at);
  return sorted[Math.min(Math.max(from + by, 0), last)];
}

export const AXIS_LABEL: Record<XAxis, string> = {
  step: 'step',
  relative: 'time since the start',
  wall: 'wall time',
};
