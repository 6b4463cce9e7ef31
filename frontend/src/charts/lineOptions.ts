import type uPlot from 'uplot';
import { crosshair } from '../crosshair';
import { asinhSplits, logSplits, thinLog, ticks } from '../models/ticks';
import { color, FONT } from '../theme';
import type { Line, LineHandlers, LineSpec } from './lineSpec';
import { paintHatch, paintMarks, paintShade } from './overlay';
import { Tooltip } from './tooltip';

export interface ChartHost {
  width: number;
  height: number;
  /** Who moves the crosshair, so that it does not follow itself. */
  owner: unknown;
  handlers: LineHandlers;
  /** What is drawn now: marks and formats change without a new chart. */
  spec: () => LineSpec | null;
  /** The ends of the y axis for what of x is shown. */
  yRange: () => uPlot.Range.MinMax;
}

const DISTRIBUTION = { linear: 1, log: 3, asinh: 4 } as const;

/** Below this size an asinh axis is linear. */
export const ASINH_THRESHOLD = 1e-3;

/** Least distance of the labels of a linear y axis, CSS pixels. */
const LINEAR_SPACE = 36;

const SPARSE = 40;

/** A line of few points shows where it was measured. */
function isSparse(line: Line): boolean {
  return (
    line.points !== false &&
    line.legend !== false &&
    !line.bandToNext &&
    line.values.filter((v) => v !== null).length < SPARSE
  );
}

/** uPlot's options for a spec. */
export function lineOptions(spec: LineSpec, host: ChartHost): uPlot.Options {
  let tooltip: Tooltip | null = null;
  const stroke = (name: string) => (name.startsWith('#') ? name : color(name));
  const axis = (label: string): uPlot.Axis => ({
    stroke: () => color('muted'),
    grid: { stroke: () => color('grid'), width: 1 },
    ticks: { stroke: () => color('grid'), width: 1, size: 4 },
    font: FONT,
    label,
    labelFont: FONT,
    labelSize: 16,
    labelGap: 0,
    gap: 4,
  });
  return {
    width: host.width,
    height: host.height,
    // On the right half of the last label, such as 1,000,000 or a time of day.
    padding: [12, 28, 0, 0],
    legend: { show: false },
    focus: { alpha: 1 },
    scales: {
      x: { time: false },
      y: { distr: DISTRIBUTION[spec.yScale], asinh: ASINH_THRESHOLD, range: host.yRange },
    },
    cursor: {
      drag: { x: true, y: false, setScale: false },
      points: { size: 6 },
      y: false,
      bind: {
        dblclick: () => () => {
          host.handlers.onZoom?.(null);
          return null;
        },
      },
    },
    series: [
      {},
      ...spec.lines.map(
        (line): uPlot.Series => ({
          label: line.label,
          stroke: () => stroke(line.color),
          width: line.points ? 0 : line.width,
          dash: line.dash,
          alpha: line.alpha ?? 1,
          spanGaps: true,
          paths: line.points ? () => null : undefined,
          points: line.points
            ? {
                show: true,
                size: line.width,
                fill: () => stroke(line.color),
                stroke: () => stroke(line.color),
              }
            : { show: isSparse(line), size: 5, fill: () => stroke(line.color) },
        }),
      ),
    ],
    bands: spec.lines.flatMap((line, i): uPlot.Band[] =>
      line.bandToNext ? [{ series: [i + 1, i + 2], fill: () => color('band') }] : [],
    ),
    axes: [
      {
        ...axis(spec.xLabel),
        values: (_u, splits) => splits.map((v) => host.spec()?.xFormat(v) ?? ''),
        size: 24,
        // uPlot's own splits never end where the gap is lost in the size of the numbers.
        splits: (u, _axis, min, max) => host.spec()?.xSplits(min, max, u.width) ?? [],
      },
      {
        ...axis(spec.yLabel),
        ...(spec.yScale === 'log'
          ? {
              splits: (_u, _axis, min, max) => logSplits(min, max),
              filter: (u, splits) => thinLog(splits, u.bbox.height / devicePixelRatio, 22),
              grid: { ...axis('').grid, filter: (_u, splits) => thinLog(splits, 1e6, 1) },
              ticks: { ...axis('').ticks, filter: (_u, splits) => thinLog(splits, 1e6, 1) },
            }
          : {}),
        ...(spec.yScale === 'linear'
          ? { splits: (u, _axis, min, max) => ticks(min, max, u.height / LINEAR_SPACE, 'value') }
          : {}),
        ...(spec.yScale === 'asinh'
          ? { splits: (_u, _axis, min, max) => asinhSplits(min, max, ASINH_THRESHOLD) }
          : {}),
        values: (_u, splits) => splits.map((v) => (v === null ? '' : (host.spec()?.yFormat(v) ?? ''))),
        size: (u, values) => {
          u.ctx.font = FONT;
          const widest = Math.max(0, ...(values ?? []).map((v) => u.ctx.measureText(v ?? '').width));
          return Math.ceil(widest / devicePixelRatio) + 12;
        },
      },
    ],
    hooks: {
      drawClear: [
        (u) => paintShade(u, host.spec()?.shade ?? null),
        (u) => paintHatch(u, host.spec()?.expected ?? null),
      ],
      draw: [(u) => paintMarks(u, host.spec()?.marks ?? [])],
      setCursor: [() => tooltip?.show(host.spec())],
      setSelect: [
        (u) => {
          const { left, width } = u.select;
          if (width > 4) host.handlers.onZoom?.([u.posToVal(left, 'x'), u.posToVal(left + width, 'x')]);
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        },
      ],
      ready: [
        (u) => {
          tooltip = new Tooltip(u);
          // Not where uPlot sets its cursor, which it also does whenever it draws: the keyboard moves the crosshair too.
          const move = (x: number | null) => {
            if (host.spec()?.shared) crosshair.move(x, host.owner);
          };
          u.over.addEventListener('mousemove', () => move(u.posToVal(u.cursor.left ?? 0, 'x')));
          u.over.addEventListener('mouseleave', () => move(null));
          let downAt = 0;
          u.over.addEventListener('mousedown', (e) => {
            downAt = e.clientX;
          });
          u.over.addEventListener('click', (e) => {
            // A drag ends in a click too.
            if (Math.abs(e.clientX - downAt) < 4 && e.detail === 1)
              host.handlers.onPick?.(u.posToVal(u.cursor.left ?? 0, 'x'));
          });
        },
      ],
    },
  };
}
