import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { crosshair } from '../crosshair';
import { apart, visibleExtent } from '../models/extent';
import type { ScaleKind } from '../models/scale';
import { onTheme } from '../theme';
import { ASINH_THRESHOLD, type ChartHost, lineOptions } from './lineOptions';
import type { LineHandlers, LineSpec } from './lineSpec';

/** uPlot's own rounding of the ends of an axis; its extent is ours, see visibleExtent. */
const ROUNDED: Record<ScaleKind, (low: number, high: number) => uPlot.Range.MinMax> = {
  linear: (low, high) => uPlot.rangeNum(low, high, 0.1, true),
  log: (low, high) => uPlot.rangeLog(low, high, 10, false),
  asinh: (low, high) => uPlot.rangeAsinh(low, high, 10, false),
};

/** How far from what is seen a chart is made. */
const AHEAD = '200px';

/** The only file that runs uPlot; lineOptions.ts says what it draws. */
export class LineChart {
  private plot: uPlot | null = null;
  private shape = '';
  private spec: LineSpec | null = null;
  private readonly stop: (() => void)[] = [];
  private readonly resize: ResizeObserver;
  private readonly near: IntersectionObserver;
  private met = false;

  constructor(
    private readonly box: HTMLElement,
    private readonly height: number,
    private readonly handlers: LineHandlers,
  ) {
    this.resize = new ResizeObserver(() => this.fit());
    this.resize.observe(box);
    // A chart takes some 20 ms to make, and half of a page's lie below its fold.
    this.near = new IntersectionObserver(
      (entries) => {
        if (entries.some((entry) => entry.isIntersecting)) this.make();
      },
      { rootMargin: AHEAD },
    );
    this.near.observe(box);
    this.stop.push(onTheme(() => this.plot?.redraw(false)));
    this.stop.push(crosshair.subscribe((x, from) => from !== this && this.follow(x)));
  }

  update(spec: LineSpec): void {
    this.spec = spec;
    if (!this.met || !this.box.clientWidth) return;
    const data = [spec.x, ...spec.lines.map((line) => line.values)] as uPlot.AlignedData;
    // uPlot fixes series and scales at construction, so only a change of those builds a new chart.
    const shape = JSON.stringify([
      spec.lines.map(({ values: _, ...line }) => line),
      spec.yScale,
      spec.yLabel,
      spec.xLabel,
    ]);
    if (!this.plot || shape !== this.shape) {
      this.plot?.destroy();
      this.plot = new uPlot(lineOptions(spec, this.host()), data, this.box);
      this.shape = shape;
    } else {
      this.plot.setData(data, false);
    }
    this.zoom();
  }

  /** The canvas, for a picture; it is drawn first where the chart has not been in sight. */
  canvas(): HTMLCanvasElement | null {
    this.make();
    // uPlot sizes and draws after the present task; a transaction has it done at once.
    this.plot?.batch(() => {});
    return this.plot?.ctx.canvas ?? null;
  }

  destroy(): void {
    this.resize.disconnect();
    this.near.disconnect();
    for (const stop of this.stop) stop();
    this.plot?.destroy();
    this.plot = null;
  }

  private make(): void {
    this.near.disconnect();
    this.met = true;
    this.fit();
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
    const [min, max] = ends(spec);
    // At once, so that the crosshair finds its place on the new scale.
    plot.batch(() => plot.setScale('x', { min, max }));
    if (!plot.over.matches(':hover')) this.follow(crosshair.get());
  }

  private yRange(): uPlot.Range.MinMax {
    const { spec } = this;
    if (!spec) return [null, null];
    const lines = spec.lines.map(({ values }) => values);
    const extent = visibleExtent(spec.x, lines, ...ends(spec), spec.yScale, ASINH_THRESHOLD);
    return extent ? ROUNDED[spec.yScale](...extent) : [null, null];
  }

  private follow(x: number | null): void {
    const { plot, spec } = this;
    if (!plot || !spec?.shared) return;
    const left = x === null ? -10 : plot.valToPos(x, 'x');
    plot.setCursor({ left, top: x === null ? -10 : plot.cursor.top || 0 }, false);
  }

  private host(): ChartHost {
    return {
      width: this.box.clientWidth,
      height: this.height,
      owner: this,
      handlers: this.handlers,
      spec: () => this.spec,
      yRange: () => this.yRange(),
    };
  }
}

/** What of x is shown. */
function ends({ range, x }: LineSpec): [number, number] {
  return apart(...(range ?? ([x[0] ?? 0, x[x.length - 1] ?? 1] as const)));
}
