import { crosshair } from '../crosshair';
import type { XAxis } from '../link';
import { columns, type Heat, type HeatScale, lastEnd, peak, shade } from '../models/heat';
import { ticks } from '../models/ticks';
import { color, FONT, onTheme, theme } from '../theme';
import { colormap } from './colormap';

export interface HeatSpec {
  heat: Heat;
  scale: HeatScale;
  /** Row on screen -> layer in the data. */
  order: readonly number[];
  /** Names in the same order. */
  names: readonly string[];
  rowHeight: number;
  range: readonly [number, number];
  selected: number | null;
  /** Layers of the chosen finding, null where none is chosen. */
  lit: ReadonlySet<number> | null;
  shade: readonly [number, number] | null;
  pin: number | null;
  xFormat: (x: number) => string;
  xLabel: string;
  axis: XAxis;
}

export interface HeatHandlers {
  onHover(cell: { layer: number; x: number } | null): void;
  onPick(layer: number, x: number): void;
  onZoom(range: [number, number] | null): void;
}

const GUTTER = { left: 168, right: 14, top: 4, bottom: 36 };
const NARROW = 700;
const LABEL_HEIGHT = 13;

/** Draws layers x steps: cells on one canvas, painted when the data changes, the crosshair on another above it. */
export class HeatmapView {
  private readonly cells = document.createElement('canvas');
  private readonly over = document.createElement('canvas');
  private readonly resize: ResizeObserver;
  private readonly stop: (() => void)[] = [];
  private spec: HeatSpec | null = null;
  private drag: number | null = null;
  private hovered = -1;

  constructor(
    private readonly box: HTMLElement,
    private readonly handlers: HeatHandlers,
  ) {
    this.over.className = 'over';
    box.append(this.cells, this.over);
    this.resize = new ResizeObserver(() => this.paint());
    this.resize.observe(box);
    this.stop.push(onTheme(() => this.paint()));
    this.stop.push(crosshair.subscribe(() => this.paintOver()));
    this.over.addEventListener('pointermove', (e) => this.onMove(e));
    this.over.addEventListener('pointerleave', () => this.onLeave());
    this.over.addEventListener('pointerdown', (e) => {
      this.drag = e.offsetX;
      this.over.setPointerCapture(e.pointerId);
    });
    this.over.addEventListener('pointerup', (e) => this.onUp(e));
    this.over.addEventListener('dblclick', () => this.handlers.onZoom(null));
  }

  update(spec: HeatSpec): void {
    this.spec = spec;
    this.paint();
  }

  destroy(): void {
    this.resize.disconnect();
    for (const stop of this.stop) stop();
    this.cells.remove();
    this.over.remove();
  }

  /** For a picture of the chart. */
  canvas(): HTMLCanvasElement {
    return this.cells;
  }

  /** Room for the layers' names; a narrow page has less of it. */
  private get gutter(): number {
    return this.box.clientWidth < NARROW ? 96 : GUTTER.left;
  }

  private get width(): number {
    return Math.max(0, this.box.clientWidth - this.gutter - GUTTER.right);
  }

  private x(left: number): number {
    const [from, to] = (this.spec as HeatSpec).range;
    return from + ((left - this.gutter) / this.width) * (to - from);
  }

  private left(x: number): number {
    const [from, to] = (this.spec as HeatSpec).range;
    return this.gutter + ((x - from) / (to - from)) * this.width;
  }

  private row(top: number): number {
    const { order, rowHeight } = this.spec as HeatSpec;
    const row = Math.floor((top - GUTTER.top) / rowHeight);
    return row >= 0 && row < order.length ? row : -1;
  }

  private paint(): void {
    const { spec } = this;
    if (!spec || this.width < 10) return;
    const rows = spec.order.length * spec.rowHeight;
    const height = GUTTER.top + rows + GUTTER.bottom;
    const ctx = size(this.cells, this.box.clientWidth, height);
    ctx.clearRect(0, 0, this.box.clientWidth, height);
    ctx.imageSmoothingEnabled = false;
    ctx.drawImage(this.image(spec), this.gutter, GUTTER.top, this.width, rows);
    this.paintLit(ctx, spec);
    this.paintAxis(ctx, spec, GUTTER.top + rows);
    this.paintNames(ctx, spec);
    this.paintOver();
  }

  /** One pixel a column and a layer, scaled up when drawn: painting 200 layers costs no more than its pixels. */
  private image(spec: HeatSpec): HTMLCanvasElement {
    const map = colormap(theme());
    const width = Math.round(this.width * devicePixelRatio);
    const image = document.createElement('canvas');
    image.width = width;
    image.height = Math.max(spec.order.length, 1);
    const ctx = image.getContext('2d') as CanvasRenderingContext2D;
    const pixels = ctx.createImageData(width, image.height);
    const bounds = columns(spec.heat.x, spec.range[0], spec.range[1], width, lastEnd(spec.heat.x));
    spec.order.forEach((layer, row) => {
      for (let column = 0; column < width; column++) {
        const value = peak(spec.heat, layer, bounds[2 * column], bounds[2 * column + 1]);
        const place = shade(value, spec.scale);
        if (Number.isNaN(place)) continue;
        const at = 4 * (row * width + column);
        const index = place > 1 ? 255 : Math.round(place * 255);
        pixels.data[at] = map[3 * index];
        pixels.data[at + 1] = map[3 * index + 1];
        pixels.data[at + 2] = map[3 * index + 2];
        // "Never" is hatched, so that it is not the colour alone that tells it from a large number.
        pixels.data[at + 3] = place > 1 && (column + 2 * row) % 6 < 2 ? 90 : 255;
      }
    });
    ctx.putImageData(pixels, 0, 0);
    return image;
  }

  private paintLit(ctx: CanvasRenderingContext2D, spec: HeatSpec): void {
    if (!spec.lit) return;
    ctx.fillStyle = color('veil');
    spec.order.forEach((layer, row) => {
      if (!spec.lit?.has(layer)) {
        ctx.fillRect(this.gutter, GUTTER.top + row * spec.rowHeight, this.width, spec.rowHeight);
      }
    });
    ctx.fillStyle = color('accent');
    spec.order.forEach((layer, row) => {
      if (spec.lit?.has(layer)) ctx.fillRect(2, GUTTER.top + row * spec.rowHeight, 4, spec.rowHeight);
    });
  }

  private paintAxis(ctx: CanvasRenderingContext2D, spec: HeatSpec, top: number): void {
    ctx.font = FONT;
    ctx.fillStyle = color('muted');
    ctx.strokeStyle = color('grid');
    ctx.textBaseline = 'top';
    for (const x of ticks(...spec.range, this.width / 90, spec.axis)) {
      const left = this.left(x);
      ctx.textAlign = left > this.gutter + this.width - 20 ? 'right' : 'center';
      ctx.beginPath();
      ctx.moveTo(left, top);
      ctx.lineTo(left, top + 4);
      ctx.stroke();
      ctx.fillText(spec.xFormat(x), left, top + 7);
    }
    ctx.textAlign = 'center';
    ctx.fillText(spec.xLabel, this.gutter + this.width / 2, top + 21);
  }

  /** As many names as there is room for; the chosen layer's is always among them. */
  private paintNames(ctx: CanvasRenderingContext2D, spec: HeatSpec): void {
    const every = Math.max(1, Math.ceil(LABEL_HEIGHT / spec.rowHeight));
    const chosen = spec.selected === null ? -1 : spec.order.indexOf(spec.selected);
    ctx.textAlign = 'right';
    ctx.textBaseline = 'middle';
    spec.names.forEach((name, row) => {
      const crowded = chosen >= 0 && Math.abs(row - chosen) < every;
      if (row !== chosen && (row % every || crowded)) return;
      ctx.font = row === chosen ? FONT.replace('11px', '600 11px') : FONT;
      ctx.fillStyle = color(row === chosen ? 'text' : 'muted');
      const middle = GUTTER.top + (row + 0.5) * spec.rowHeight;
      ctx.fillText(shorten(ctx, name, this.gutter - 16), this.gutter - 6, middle);
    });
  }

  private paintOver(): void {
    const { spec } = this;
    if (!spec || this.width < 10) return;
    const rows = spec.order.length * spec.rowHeight;
    const height = GUTTER.top + rows + GUTTER.bottom;
    const ctx = size(this.over, this.box.clientWidth, height);
    ctx.clearRect(0, 0, this.box.clientWidth, height);
    const line = (x: number, style: string, width: number) => {
      if (x < spec.range[0] || x > spec.range[1]) return;
      ctx.fillStyle = style;
      ctx.fillRect(this.left(x) - width / 2, GUTTER.top, width, rows);
    };
    if (spec.shade) {
      for (const x of spec.shade) line(x, color('accent'), 1);
    }
    if (spec.pin !== null) line(spec.pin, color('accent'), 1.5);
    const x = crosshair.get();
    if (x !== null) line(x, color('text'), 1);
    const frame = (layer: number | null, style: string, width: number) => {
      const row = layer === null ? -1 : spec.order.indexOf(layer);
      if (row < 0) return;
      ctx.strokeStyle = style;
      ctx.lineWidth = width;
      ctx.strokeRect(
        this.gutter - 1,
        GUTTER.top + row * spec.rowHeight - 0.5,
        this.width + 2,
        spec.rowHeight + 1,
      );
    };
    frame(this.hovered < 0 ? null : spec.order[this.hovered], color('muted'), 1);
    frame(spec.selected, color('accent'), 2);
    if (this.drag !== null && x !== null) {
      const start = this.drag;
      ctx.fillStyle = color('shade');
      ctx.fillRect(Math.min(start, this.left(x)), GUTTER.top, Math.abs(this.left(x) - start), rows);
    }
  }

  private onMove(event: PointerEvent): void {
    if (!this.spec) return;
    const x = this.x(event.offsetX);
    this.hovered = this.row(event.offsetY);
    const inside = x >= this.spec.range[0] && x <= this.spec.range[1];
    this.handlers.onHover(this.hovered >= 0 && inside ? { layer: this.spec.order[this.hovered], x } : null);
    crosshair.move(inside ? x : null, this);
    this.paintOver();
  }

  private onLeave(): void {
    this.hovered = -1;
    this.handlers.onHover(null);
    crosshair.move(null, this);
    this.paintOver();
  }

  private onUp(event: PointerEvent): void {
    const start = this.drag;
    this.drag = null;
    if (!this.spec || start === null) return;
    if (Math.abs(event.offsetX - start) > 6) {
      const [a, b] = [this.x(start), this.x(event.offsetX)].sort((p, q) => p - q);
      this.handlers.onZoom([Math.max(a, this.spec.range[0]), Math.min(b, this.spec.range[1])]);
      return;
    }
    const row = this.row(event.offsetY);
    if (row >= 0) this.handlers.onPick(this.spec.order[row], this.x(event.offsetX));
  }
}

/** The end of a path tells more than its start. */
function shorten(ctx: CanvasRenderingContext2D, name: string, width: number): string {
  if (ctx.measureText(name).width <= width) return name;
  const leaf = `…${name.slice(name.lastIndexOf('/'))}`;
  if (name.includes('/') && ctx.measureText(leaf).width <= width) return leaf;
  let kept = name.slice(-60);
  while (kept.length > 1 && ctx.measureText(`…${kept}`).width > width) kept = kept.slice(1);
  return `…${kept}`;
}

function size(canvas: HTMLCanvasElement, width: number, height: number): CanvasRenderingContext2D {
  const ctx = canvas.getContext('2d') as CanvasRenderingContext2D;
  const ratio = devicePixelRatio;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  return ctx;
}
