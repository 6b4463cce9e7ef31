import type { Line } from '../charts/lineSpec';
import { column, type Frame } from '../frame';
import type { XAxis } from '../link';
import type { Losses } from '../wire';
import { align, nullable, type Track } from './align';
import { Clock } from './axis';
import { type ScaleKind, scaleFor } from './scale';
import { smooth } from './smoothing';

export const KINDS = ['training', 'batch', 'recalibrated', 'inference'] as const;
/** For comparison; hidden until they are switched on. */
export const MORE_KINDS = ['updated', 'fit_loss'] as const;
export type Kind = (typeof KINDS)[number] | (typeof MORE_KINDS)[number];

const LABEL: Partial<Record<Kind, string>> = {
  batch: 'batch statistics',
  recalibrated: 'statistics of recent steps',
  updated: 'after the update',
  fit_loss: 'shown by fit',
};

export function kindLabel(kind: Kind): string {
  return LABEL[kind] ?? kind;
}

type Style = Pick<Line, 'color' | 'width' | 'dash'>;

/** One dash for each kind, so that the lines are distinct without colour. */
export const KIND_STYLE: Record<Kind, Style> = {
  training: { color: 'training', width: 1.5, dash: [2, 3] },
  batch: { color: 'batch', width: 1.75 },
  recalibrated: { color: 'recalibrated', width: 1.75, dash: [9, 4] },
  inference: { color: 'inference', width: 2.5 },
  updated: { color: 'accent', width: 1.25, dash: [1, 3] },
  fit_loss: { color: 'text', width: 1.25, dash: [12, 3, 2, 3] },
};

export interface LossRun {
  run: string;
  /** A literal colour when several runs share the chart. */
  color: string | null;
  frame: Frame;
  start?: number;
  losses: Losses | null;
  /** How much faster and slower than forecast the statistics may converge, as factors on its updates. */
  pace?: readonly [number, number] | null;
}

export interface LossChart {
  x: Float64Array;
  lines: Line[];
  scale: ScaleKind;
  /** What the axis shows until it is zoomed: the record, and a quarter beyond it where there is a forecast. */
  extent: [number, number];
  /** Where the forecast ends. */
  forecastEnd: number;
}

const AHEAD = 0.25;

/** `start` is the wall time of the run's first record, which another frame may hold. */
export function clockOf(frame: Frame | null, start?: number): Clock {
  return new Clock(column(frame, 'steps'), column(frame, 'wall_times'), start);
}

/** Lines of the paired-loss chart; with several runs, of the chosen kinds of each. */
export function lossChart(
  runs: readonly LossRun[],
  kinds: readonly Kind[],
  probe: string,
  axis: XAxis,
  smoothing: number,
): LossChart {
  const parts = runs.flatMap((run) => runParts(run, kinds, probe, axis));
  const scale = scaleFor(parts.flatMap((part) => part.track.values as (number | null)[]));
  const drawn = parts.flatMap((part): { line: Omit<Line, 'values'>; track: Track }[] => {
    const { line, track } = part;
    if (!smoothing || part.ahead) return [{ line, track }];
    const even = smooth(track.values, smoothing, scale === 'log');
    return [
      {
        line: { ...line, id: `${line.id}:raw`, alpha: 0.25, width: 1, dash: undefined, legend: false },
        track,
      },
      { line, track: { x: track.x, values: even } },
    ];
  });
  const { x, values } = align(drawn.map(({ track }) => track));
  const lines = drawn.map(({ line }, i) => ({ ...line, values: values[i] }));
  const recorded = parts.filter((part) => !part.ahead).flatMap((part) => ends(part.track.x));
  const ahead = parts.filter((part) => part.ahead).flatMap((part) => ends(part.track.x));
  const [from, to] = [Math.min(...recorded), Math.max(...recorded)];
  const forecastEnd = Math.max(to, ...ahead);
  const end = Math.min(forecastEnd, to + AHEAD * (to - from));
  return { x, lines, scale, extent: recorded.length ? [from, end] : [0, 1], forecastEnd };
}

interface Part {
  line: Omit<Line, 'values'>;
  track: Track;
  ahead: boolean;
}

function runParts(
  { run, color, frame, start, losses, pace }: LossRun,
  kinds: readonly Kind[],
  probe: string,
  axis: XAxis,
): Part[] {
  const clock = clockOf(frame, start);
  const x = clock.all(axis);
  const parts: Part[] = [];
  for (const kind of kinds) {
    const data = frame.get(`${probe}/${kind}`)?.data;
    if (!data) continue;
    const style = { ...KIND_STYLE[kind], ...(color ? { color } : {}) };
    const name = kindLabel(kind);
    const label = color ? `${run} · ${name}` : name;
    // Of several runs one kind is drawn, the one that was selected.
    const optional = !color && MORE_KINDS.includes(kind as never);
    parts.push({
      line: { id: `${run}/${kind}`, label, optional, ...style },
      track: { x, values: nullable(data) },
      ahead: false,
    });
  }
  const source = probe === 'train' ? losses : losses?.validation;
  if (kinds.includes('inference') && source?.forecast.length && source.step !== null) {
    const step = source.step;
    const points = [{ updates: 0, loss: source.inference ?? Number.NaN }, ...source.forecast];
    const at = (updates: number) => clock.position(step + updates, axis);
    if (pace) parts.push(...band(run, color, points, pace, at));
    parts.push({
      line: {
        id: `${run}/forecast`,
        label: color ? `${run} · forecast` : 'forecast',
        color: color ?? 'inference',
        width: 1.75,
        dash: [4, 4],
      },
      track: {
        x: Float64Array.from(points, ({ updates }) => at(updates)),
        values: points.map(({ loss }) => (Number.isFinite(loss) ? loss : null)),
      },
      ahead: true,
    });
  }
  return parts;
}

type Point = Losses['forecast'][number];

/** Where the forecast may lie: the same course, run through as fast and as slowly as the interval of its steps says. */
function band(
  run: string,
  color: string | null,
  points: readonly Point[],
  pace: readonly [number, number],
  at: (updates: number) => number,
): Part[] {
  const x = points.flatMap(({ updates }) => pace.map((factor) => updates * factor)).sort((a, b) => a - b);
  const edges = pace.map((factor) => x.map((updates) => lossAfter(points, updates / factor)));
  const highest = x.map((_, i) => Math.max(edges[0][i], edges[1][i]));
  const lowest = x.map((_, i) => Math.min(edges[0][i], edges[1][i]));
  const part = (id: string, values: number[], line: Partial<Line>): Part => ({
    line: { id, label: 'forecast, 80% interval', color: color ?? 'inference', width: 0.5, ...line },
    track: { x: Float64Array.from(x, at), values: values.map((v) => (Number.isFinite(v) ? v : null)) },
    ahead: true,
  });
  const id = `${run}/forecast-band`;
  return [
    part(id, highest, { bandToNext: true, legend: color === null }),
    part(`${id}:low`, lowest, { legend: false }),
  ];
}

/** The forecast loss after some updates; between two points the logarithm is interpolated, past the last it stays. */
function lossAfter(points: readonly Point[], updates: number): number {
  const after = points.findIndex((point) => point.updates > updates);
  if (after < 0) return points[points.length - 1].loss;
  if (after === 0) return points[0].loss;
  const [a, b] = [points[after - 1], points[after]];
  const share = (updates - a.updates) / (b.updates - a.updates);
  return a.loss > 0 && b.loss > 0 ? a.loss * (b.loss / a.loss) ** share : a.loss + share * (b.loss - a.loss);
}

function ends(x: ArrayLike<number>): number[] {
  return x.length ? [x[0], x[x.length - 1]] : [];
}
