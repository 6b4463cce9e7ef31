import { crosshair } from '../crosshair';
import { columns, lastEnd, worstRow } from '../models/heat';
import { onTheme } from '../theme';
import { geometry, type HeatGeometry, heatHeight, rowAt, toPosition } from './heatGeometry';
import { type HeatSpec, paintCells, paintHeatmap, paintMarks, sameCells } from './heatmapPaint';

export interface HeatHandlers {
  onHover(cell: { layer: number; x: number } | null): void;
  onPick(layer: number, x: number): void;
  onZoom(range: [number, number] | null): void;
}

/** Draws layers x steps: cells on one canvas, painted when the data changes, the crosshair on another above it. */
export class HeatmapView {
  private readonly cells = document.createElement('canvas');
  private readonly over = document.createElement('canvas');
  private readonly resize: ResizeObserver;
  private readonly stop: (() => void)[] = [];
  private spec: HeatSpec | null = null;
  private drag: number | null = null;
  private hovered = -1;
  private painted: { spec: HeatSpec; width: number; image: HTMLCanvasElement } | null = null;

  constructor(
    private readonly box: HTMLElement,
    private readonly handlers: HeatHandlers,
  ) {
    this.over.className = 'over';
    box.append(this.cells, this.over);
    this.resize = new ResizeObserver(() => this.paint());
    this.resize.observe(box);
    this.stop.push(
      onTheme(() => {
        this.painted = null;
        this.paint();
      }),
    );
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

  /** Null while there is nothing to draw, or no room: a hidden tab has no width. */
  private place(): { spec: HeatSpec; at: HeatGeometry } | null {
    const { spec } = this;
    if (!spec) return null;
    const at = geometry(this.box.clientWidth, spec.order.length, spec.rowHeight, spec.range);
    return at.width < 10 ? null : { spec, at };
  }

  private paint(): void {
    const place = this.place();
    if (!place) return;
    const { spec, at } = place;
    if (!this.painted || this.painted.width !== at.width || !sameCells(this.painted.spec, spec)) {
      this.painted = { spec, width: at.width, image: paintCells(spec, at) };
    }
    paintHeatmap(this.clear(this.cells, spec), spec, at, this.painted.image);
    this.paintOver();
  }

  /** The row at a place of the canvas, -1 for none. Where layers share a pixel it is the one that gave it its colour. */
  private rowUnder({ spec, at }: { spec: HeatSpec; at: HeatGeometry }, left: number, top: number): number {
    const row = rowAt(at, top);
    if (row < 0 || at.rowHeight >= 1) return row;
    const x = toPosition(at, left);
    const [from, to] = columns(
      spec.heat.x,
      x,
      x + (at.range[1] - at.range[0]) / at.width,
      1,
      lastEnd(spec.heat.x),
    );
    const end = Math.min(Math.ceil(row + 1 / at.rowHeight), at.rows);
    return worstRow(spec.heat, spec.order, [row, end], [from, to], spec.scale.diverging);
  }

  private paintOver(): void {
    const place = this.place();
    if (!place) return;
    paintMarks(this.clear(this.over, place.spec), place.spec, place.at, {
      crosshair: crosshair.get(),
      hoveredRow: this.hovered,
      drag: this.drag,
    });
  }

  /** A canvas is only resized when it must be: that alone costs more than the drawing. */
  private clear(canvas: HTMLCanvasElement, spec: HeatSpec): CanvasRenderingContext2D {
    const ctx = canvas.getContext('2d') as CanvasRenderingContext2D;
    const [width, height] = [this.box.clientWidth, heatHeight(spec.order.length, spec.rowHeight)];
    const [w, h] = [Math.round(width * devicePixelRatio), Math.round(height * devicePixelRatio)];
    if (canvas.width !== w || canvas.height !== h) {
      canvas.width = w;
      canvas.height = h;
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    ctx.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    ctx.clearRect(0, 0, width, height);
    return ctx;
  }

  private onMove(event: PointerEvent): void {
    const place = this.place();
    if (!place) return;
    const x = toPosition(place.at, event.offsetX);
    const inside = x >= place.at.range[0] && x <= place.at.range[1];
    this.hovered = this.rowUnder(place, event.offsetX, event.offsetY);
    this.handlers.onHover(this.hovered >= 0 && inside ? { layer: place.spec.order[this.hovered], x } : null);
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
    const place = this.place();
    this.drag = null;
    if (!place || start === null) return;
    const { spec, at } = place;
    if (Math.abs(event.offsetX - start) > 6) {
      const [a, b] = [toPosition(at, start), toPosition(at, event.offsetX)].sort((p, q) => p - q);
      this.handlers.onZoom([Math.max(a, at.range[0]), Math.min(b, at.range[1])]);
      return;
    }
    const row = this.rowUnder(place, event.offsetX, event.offsetY);
    if (row >= 0) this.handlers.onPick(spec.order[row], toPosition(at, event.offsetX));
  }
}
