import type { ScaleKind } from './scale';

type Values = readonly (number | null)[];

/** A line is straight between two points in these coordinates. */
interface Coordinates {
  to(value: number): number;
  back(at: number): number;
}

const COORDINATES: Record<ScaleKind, (threshold: number) => Coordinates> = {
  linear: () => ({ to: (v) => v, back: (v) => v }),
  log: () => ({ to: Math.log, back: Math.exp }),
  asinh: (threshold) => ({ to: (v) => Math.asinh(v / threshold), back: (v) => Math.sinh(v) * threshold }),
};

/**
 * Least and greatest value that lines have between two ends of x, null where they have none: of the points there, and
 * where a line crosses an end on its way to a point outside. Without the crossings a line that comes from far above
 * would run outside of the view.
 */
export function visibleExtent(
  x: ArrayLike<number>,
  lines: readonly Values[],
  from: number,
  to: number,
  scale: ScaleKind,
  threshold = 1,
): [number, number] | null {
  const { to: project, back } = COORDINATES[scale](threshold);
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  const see = (value: number) => {
    if (!Number.isFinite(value) || (scale === 'log' && value <= 0)) return;
    if (value < low) low = value;
    if (value > high) high = value;
  };
  const cross = (x0: number, y0: number, x1: number, y1: number, at: number) => {
    if (x0 < at && at < x1) {
      see(back(project(y0) + ((project(y1) - project(y0)) * (at - x0)) / (x1 - x0)));
    }
  };
  for (const values of lines) {
    let before = -1;
    for (let i = 0; i < x.length; i++) {
      const value = values[i];
      if (value === null || value === undefined) continue;
      if (x[i] >= from && x[i] <= to) see(value);
      if (before >= 0) {
        const last = values[before] as number;
        cross(x[before], last, x[i], value, from);
        cross(x[before], last, x[i], value, to);
      }
      before = i;
      if (x[i] > to) break;
    }
  }
  return low <= high ? [low, high] : null;
}

/** Two ends that are apart: a single position gets room on both sides, more of it far from zero. */
export function apart(from: number, to: number): [number, number] {
  if (to > from) return [from, to];
  const room = Math.max(1, Math.abs(from) * 1e-9);
  return [from - room, from + room];
}
