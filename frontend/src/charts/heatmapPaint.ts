import type { XAxis } from '../link';
import {
  columns,
  type Heat,
  type HeatScale,
  lastEnd,
  layerRows,
  peak,
  shade,
  worstRow,
} from '../models/heat';
import { ticks } from '../models/ticks';
import { color, FONT, theme } from '../theme';
import { colormap } from './colormap';
import { cellsHeight, type HeatGeometry, toPixel } from './heatGeometry';

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

type Context = CanvasRenderingContext2D;

const LABEL_HEIGHT = 13;

export function paintHeatmap(ctx: Context, spec: HeatSpec, at: HeatGeometry, cells: CanvasImageSource): void {
  ctx.imageSmoothingEnabled = false;
  ctx.drawImage(cells, at.left, at.top, at.width, cellsHeight(at));
  paintLit(ctx, spec, at);
  paintAxis(ctx, spec, at);
  paintNames(ctx, spec, at);
}

/** Whether two specs have the same cells: choosing a layer or a finding paints around them only. */
export function sameCells(a: HeatSpec, b: HeatSpec): boolean {
  return (
    a.heat === b.heat &&
    a.order === b.order &&
    a.scale === b.scale &&
    a.range[0] === b.range[0] &&
    a.range[1] === b.range[1]
  );
}

/** One pixel a column and a layer, scaled up when drawn: painting 200 layers costs no more than its pixels. */
export function paintCells(spec: HeatSpec, at: HeatGeometry): HTMLCanvasElement {
  const { heat, order, scale } = spec;
  const map = colormap(theme(), scale.diverging);
  const width = Math.round(at.width * devicePixelRatio);
  const rows = layerRows(order.length, Math.round(cellsHeight(at) * devicePixelRatio));
  const shared = rows.length - 1 < order.length;
  const image = document.createElement('canvas');
  image.width = width;
  image.height = rows.length - 1;
  const ctx = image.getContext('2d') as Context;
  const pixels = ctx.createImageData(width, image.height);
  const bounds = columns(heat.x, at.range[0], at.range[1], width, lastEnd(heat.x));
  for (let row = 0; row < image.height; row++) {
    let place = Number.NaN;
    for (let column = 0; column < width; column++) {
      const records = [bounds[2 * column], bounds[2 * column + 1]] as const;
      // A record of a long run is as wide as many columns.
      const again =
        column > 0 && bounds[2 * column - 2] === records[0] && bounds[2 * column - 1] === records[1];
      if (!again) {
        const worst = shared
          ? worstRow(heat, order, [rows[row], rows[row + 1]], records, scale.diverging)
          : row;
        place = shade(peak(heat, order[worst], ...records, scale.diverging), scale);
      }
      if (Number.isNaN(place)) continue;
      const pixel = 4 * (row * width + column);
      const index = 3 * (place > 1 ? 255 : Math.round(place * 255));
      pixels.data[pixel] = map[index];
      pixels.data[pixel + 1] = map[index + 1];
      pixels.data[pixel + 2] = map[index + 2];
      // "Never" is hatched, so that it is not the colour alone that tells it from a large number.
      pixels.data[pixel + 3] = place > 1 && (column + 2 * row) % 6 < 2 ? 90 : 255;
    }
  }
  ctx.putImageData(pixels, 0, 0);
  return image;
}

/** The layers of the chosen finding are marked at the edge, the others veiled. */
function paintLit(ctx: Context, { lit, order }: HeatSpec, at: HeatGeometry): void {
  if (!lit) return;
  const top = (row: number) => at.top + row * at.rowHeight;
  // Equal rows are painted in one piece; rows thinner than a pixel would leave seams.
  for (let first = 0, end = 1; first < order.length; first = end, end++) {
    const chosen = lit.has(order[first]);
    while (end < order.length && lit.has(order[end]) === chosen) end++;
    const height = top(end) - top(first);
    ctx.fillStyle = color(chosen ? 'accent' : 'veil');
    if (chosen) ctx.fillRect(2, top(first), 4, Math.max(height, 1));
    else ctx.fillRect(at.left, top(first), at.width, height);
  }
}

function paintAxis(ctx: Context, spec: HeatSpec, at: HeatGeometry): void {
  const top = at.top + cellsHeight(at);
  ctx.font = FONT;
  ctx.fillStyle = color('muted');
  ctx.strokeStyle = color('grid');
  ctx.textBaseline = 'top';
  for (const x of ticks(...at.range, at.width / 90, spec.axis)) {
    const left = toPixel(at, x);
    ctx.textAlign = left > at.left + at.width - 20 ? 'right' : 'center';
    ctx.beginPath();
    ctx.moveTo(left, top);
    ctx.lineTo(left, top + 4);
    ctx.stroke();
    ctx.fillText(spec.xFormat(x), left, top + 7);
  }
  ctx.textAlign = 'center';
  ctx.fillText(spec.xLabel, at.left + at.width / 2, top + 21);
}

/** As many names as there is room for; the chosen layer's is always among them. */
function paintNames(ctx: Context, spec: HeatSpec, at: HeatGeometry): void {
  const every = Math.max(1, Math.ceil(LABEL_HEIGHT / at.rowHeight));
  const chosen = spec.selected === null ? -1 : spec.order.indexOf(spec.selected);
  ctx.textAlign = 'right';
  ctx.textBaseline = 'middle';
  spec.names.forEach((name, row) => {
    const crowded = chosen >= 0 && Math.abs(row - chosen) < every;
    if (row !== chosen && (row % every || crowded)) return;
    ctx.font = row === chosen ? FONT.replace('11px', '600 11px') : FONT;
    ctx.fillStyle = color(row === chosen ? 'text' : 'muted');
    const middle = at.top + (row + 0.5) * at.rowHeight;
    ctx.fillText(shorten(ctx, name, at.left - 16), at.left - 6, middle);
  });
}

/** The end of a path tells more than its start. */
function shorten(ctx: Context, name: string, width: number): string {
  if (ctx.measureText(name).width <= width) return name;
  const leaf = `…${name.slice(name.lastIndexOf('/'))}`;
  if (name.includes('/') && ctx.measureText(leaf).width <= width) return leaf;
  let kept = name.slice(-60);
  while (kept.length > 1 && ctx.measureText(`…${kept}`).width > width) kept = kept.slice(1);
  return `…${kept}`;
}

/** What the pointer and the choices of the user add, above the cells. */
export interface HeatMarks {
  crosshair: number | null;
  hoveredRow: number;
  /** Pixel where a drag began. */
  drag: number | null;
}

export function paintMarks(ctx: Context, spec: HeatSpec, at: HeatGeometry, marks: HeatMarks): void {
  const height = cellsHeight(at);
  const line = (x: number, style: string, width: number) => {
    if (x < at.range[0] || x > at.range[1]) return;
    ctx.fillStyle = color(style);
    ctx.fillRect(toPixel(at, x) - width / 2, at.top, width, height);
  };
  const frame = (row: number, style: string, width: number) => {
    if (row < 0) return;
    ctx.strokeStyle = color(style);
    ctx.lineWidth = width;
    ctx.strokeRect(at.left - 1, at.top + row * at.rowHeight - 0.5, at.width + 2, at.rowHeight + 1);
  };
  for (const x of spec.shade ?? []) line(x, 'accent', 1);
  if (spec.pin !== null) line(spec.pin, 'accent', 1.5);
  if (marks.crosshair !== null) line(marks.crosshair, 'text', 1);
  frame(marks.hoveredRow, 'muted', 1);
  frame(spec.selected === null ? -1 : spec.order.indexOf(spec.selected), 'accent', 2);
  if (marks.drag !== null && marks.crosshair !== null) {
    const to = toPixel(at, marks.crosshair);
    ctx.fillStyle = color('shade');
    ctx.fillRect(Math.min(marks.drag, to), at.top, Math.abs(to - marks.drag), height);
  }
}
