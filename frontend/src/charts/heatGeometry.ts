/** Where rows and positions lie in a heatmap, CSS pixels. */
export interface HeatGeometry {
  /** Left edge of the cells; the names stand before it. */
  left: number;
  top: number;
  width: number;
  rows: number;
  rowHeight: number;
  range: readonly [number, number];
}

const GUTTER = { wide: 168, narrow: 96, right: 14, top: 4, bottom: 36 };
const NARROW = 700;

export function geometry(
  boxWidth: number,
  rows: number,
  rowHeight: number,
  range: readonly [number, number],
): HeatGeometry {
  const left = boxWidth < NARROW ? GUTTER.narrow : GUTTER.wide;
  const width = Math.max(0, boxWidth - left - GUTTER.right);
  return { left, top: GUTTER.top, width, rows, rowHeight, range };
}

export function cellsHeight({ rows, rowHeight }: HeatGeometry): number {
  return rows * rowHeight;
}

/** Height of the canvas: cells and the axis below. */
export function heatHeight(rows: number, rowHeight: number): number {
  return GUTTER.top + rows * rowHeight + GUTTER.bottom;
}

export function toPixel({ left, width, range: [from, to] }: HeatGeometry, x: number): number {
  return left + ((x - from) / (to - from)) * width;
}

export function toPosition({ left, width, range: [from, to] }: HeatGeometry, pixel: number): number {
  return from + ((pixel - left) / width) * (to - from);
}

/** The row at a height, -1 for none. */
export function rowAt({ top, rows, rowHeight }: HeatGeometry, pixel: number): number {
  const row = Math.floor((pixel - top) / rowHeight);
  return row >= 0 && row < rows ? row : -1;
}
