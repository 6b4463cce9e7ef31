import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { crosshair } from '../crosshair';
import type { ScaleKind } from '../models/scale';
import { thinLog } from '../models/ticks';
import { color, FONT, onTheme } from '../theme';
import { type Mark, paintMarks, paintShade } from './overlay';

/** One line of a chart. Colours are names of theme properties, or literal colours that start with #. */
export interface Line {
  id: string;
  label: string;
  color: string;
  width: number;
  dash?: number[];
  alpha?: number;
  /** True: points only, without a line. False: never points. Else points where the line has few. */
  points?: boolean;
  /** Fills the area between this line and the one after it. */
  bandToNext?: boolean;
  /** False for a line that the legend does not name: the other edge of a band, or a raw line under a smooth one. */
  legend?: boolean;
  /** Drawn only when it is asked for. */
  optional?: boolean;
  values: (number | null)[];
}

export interface LineSpec {
  x: Float64Array;
  lines: Line[];
  xTime: boolean;
  xLabel: string;
  xFormat: (x: number) => string;
  /** Least distance of x labels, CSS pixels. */
  xSpace?: number;
  /** Where x labels stand, in place of evenly spread ones. */
  xTicks?: number[];
  yLabel: string;
  yScale: ScaleKind;
  yFormat: (y: number) => string;
  range: readonly [number, number] | null;
  marks: Mark[];
  shade: readonly [number, number] | null;
  /** False for charts whose x is not the time of the run. */
  shared: boolean;
}

export interface LineHandlers {
  onZoom?: (range: [number, number] | null) => void;
  onPick?: (x: number) => void;
}

const DISTRIBUTION = { linear: 1, log: 3, asinh: 4 } as const;

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

/** The only file that knows uPlot. */
export class LineChart {
  private plot: uPlot | null = null;
  private shape = '';
  private spec: LineSpec | null = null;
  private readonly stop: (() => void)[] = [];
  private readonly resize: ResizeObserver;

  constructor(
    private readonly box: HTMLElement,
    private readonly height: number,
    private readonly handlers: LineHandlers,
  ) {
    this.resize = new ResizeObserver(() => this.fit());
    this.resize.observe(box);
    this.stop.push(onTheme(() => this.plot?.redraw(false)));
    this.stop.push(crosshair.subscribe((x, from) => from !== this && this.follow(x)));
  }

  update(spec: LineSpec): void {
    this.spec = spec;
    if (!this.box.clientWidth) return;
    const data = [spec.x, ...spec.lines.map((line) => line.values)] as uPlot.AlignedData;
    // uPlot fixes series and scales at construction, so only a change of those builds a new chart.
    const shape = JSON.stringify([
      spec.lines.map(({ values: _, ...line }) => line),
      spec.yScale,
      spec.xTime,
      spec.yLabel,
      spec.xLabel,
      spec.xTicks,
    ]);
    if (!this.plot || shape !== this.shape) {
      this.plot?.destroy();
      this.plot = new uPlot(this.options(spec), data, this.box);
      this.shape = shape;
    } else {
      this.plot.setData(data, false);
    }
    this.zoom();
  }

  canvas(): HTMLCanvasElement | null {
    return this.plot?.ctx.canvas ?? null;
  }

  destroy(): void {
    this.resize.disconnect();
    for (const stop of this.stop) stop();
    this.plot?.destroy();
    this.plot = null;
  }

  private fit(): void {
    const width = this.box.clientWidth;
    if (!width || !this.spec) return;
    if (!this.plot) this.update(this.spec);
    else if (this.plot.width !== width) this.plot.setSize({ width, height: this.height });
  }

  private zoom(): void {
    const { plot, spec } = this;
    if (!plot || !spec) return;
    const [min, max] = spec.range ?? [spec.x[0] ?? 0, spec.x[spec.x.length - 1] ?? 1];
    plot.setScale('x', max > min ? { min, max } : { min: min - 1, max: min + 1 });
  }

  private follow(x: number | null): void {
    const { plot, spec } = this;
    if (!plot || !spec?.shared) return;
    const left = x === null ? -10 : plot.valToPos(x, 'x');
    plot.setCursor({ left, top: x === null ? -10 : plot.cursor.top || 0 }, false);
  }

  private options(spec: LineSpec): uPlot.Options {
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
      width: this.box.clientWidth,
      height: this.height,
      padding: [12, 14, 0, 0],
      legend: { show: false },
      focus: { alpha: 1 },
      scales: {
        x: { time: spec.xTime },
        y: { distr: DISTRIBUTION[spec.yScale], asinh: 1e-3 },
      },
      cursor: {
        drag: { x: true, y: false, setScale: false },
        points: { size: 6 },
        y: false,
        bind: {
          dblclick: () => () => {
            this.handlers.onZoom?.(null);
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
          ...(spec.xTime ? {} : { values: (_u, splits) => splits.map((v) => this.spec?.xFormat(v) ?? '') }),
          size: 24,
          space: spec.xSpace ?? 70,
          ...(spec.xTicks ? { splits: spec.xTicks } : {}),
        },
        {
          ...axis(spec.yLabel),
          ...(spec.yScale === 'log'
            ? {
                filter: (u, splits) => thinLog(splits, u.bbox.height / devicePixelRatio, 22),
                grid: { ...axis('').grid, filter: (_u, splits) => thinLog(splits, 1e6, 1) },
                ticks: { ...axis('').ticks, filter: (_u, splits) => thinLog(splits, 1e6, 1) },
              }
            : {}),
          values: (_u, splits) => splits.map((v) => (v === null ? '' : (this.spec?.yFormat(v) ?? ''))),
          size: (u, values) => {
            u.ctx.font = FONT;
            const widest = Math.max(0, ...(values ?? []).map((v) => u.ctx.measureText(v ?? '').width));
            return Math.ceil(widest / devicePixelRatio) + 12;
          },
        },
      ],
      hooks: {
        drawClear: [(u) => this.spec && paintShade(u, this.spec.shade)],
        draw: [(u) => this.spec && paintMarks(u, this.spec.marks)],
        setCursor: [
          (u) => {
            if (!this.spec?.shared) return;
            const { left } = u.cursor;
            crosshair.move(left === undefined || left < 0 ? null : u.posToVal(left, 'x'), this);
          },
        ],
        setSelect: [
          (u) => {
            const { left, width } = u.select;
            if (width > 4) this.handlers.onZoom?.([u.posToVal(left, 'x'), u.posToVal(left + width, 'x')]);
            u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          },
        ],
        ready: [
          (u) => {
            let downAt = 0;
            u.over.addEventListener('mousedown', (e) => {
              downAt = e.clientX;
            });
            u.over.addEventListener('click', (e) => {
              // A drag ends in a click too.
              if (Math.abs(e.clientX - downAt) < 4 && e.detail === 1)
                this.handlers.onPick?.(u.posToVal(u.cursor.left ?? 0, 'x'));
            });
          },
        ],
      },
    };
  }
}
