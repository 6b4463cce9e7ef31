import type uPlot from 'uplot';
import { color, FONT } from '../theme';

export interface Mark {
  x: number;
  label: string;
  /** What happened, for the tooltip. */
  text?: string;
  kind: 'event' | 'pin' | 'now' | 'value';
}

type Plot = Pick<uPlot, 'ctx' | 'bbox' | 'valToPos'>;

/** The steps of the chosen finding, under the lines. */
export function paintShade(plot: Plot, shade: readonly [number, number] | null): void {
  if (!shade) return;
  const { ctx, bbox } = plot;
  const from = clamp(plot.valToPos(shade[0], 'x', true), bbox);
  const to = clamp(plot.valToPos(shade[1], 'x', true), bbox);
  ctx.save();
  ctx.fillStyle = color('shade');
  ctx.fillRect(from, bbox.top, Math.max(to - from, 2 * devicePixelRatio), bbox.height);
  ctx.restore();
}

const HATCH = 7;

/** An interval that is a forecast: slanted lines under the lines of the chart. */
export function paintHatch(plot: Plot, interval: readonly [number, number] | null): void {
  if (!interval) return;
  const { ctx, bbox } = plot;
  const from = clamp(plot.valToPos(interval[0], 'x', true), bbox);
  const to = clamp(plot.valToPos(interval[1], 'x', true), bbox);
  if (!(to > from)) return;
  ctx.save();
  ctx.beginPath();
  ctx.rect(from, bbox.top, to - from, bbox.height);
  ctx.clip();
  ctx.strokeStyle = color('mark');
  ctx.globalAlpha = 0.5;
  ctx.lineWidth = devicePixelRatio;
  ctx.beginPath();
  const step = HATCH * devicePixelRatio;
  for (let x = from - bbox.height; x < to; x += step) {
    ctx.moveTo(x, bbox.top + bbox.height);
    ctx.lineTo(x + bbox.height, bbox.top);
  }
  ctx.stroke();
  ctx.restore();
}

/** Vertical marks with a name at the top; a name that would lie on another is left out. */
export function paintMarks(plot: Plot, marks: readonly Mark[]): void {
  const { ctx, bbox } = plot;
  const ratio = devicePixelRatio;
  let free = Number.NEGATIVE_INFINITY;
  ctx.save();
  ctx.font = FONT.replace('11px', `${10 * ratio}px`);
  ctx.textBaseline = 'top';
  // uPlot leaves its own alignment behind.
  ctx.textAlign = 'left';
  for (const mark of marks) {
    const x = plot.valToPos(mark.x, 'x', true);
    if (!(x >= bbox.left - 1 && x <= bbox.left + bbox.width + 1)) continue;
    const strong = mark.kind === 'pin' || mark.kind === 'value';
    ctx.strokeStyle = color(strong ? 'accent' : 'mark');
    ctx.fillStyle = color(strong ? 'accent' : 'muted');
    ctx.lineWidth = ratio * (strong ? 1.5 : 1);
    ctx.setLineDash(strong ? [] : [3 * ratio, 3 * ratio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const width = ctx.measureText(mark.label).width;
    const left = x + width + 6 * ratio > bbox.left + bbox.width ? x - width - 4 * ratio : x + 4 * ratio;
    if (left > free) {
      ctx.fillText(mark.label, left, bbox.top + 2 * ratio);
      free = left + width + 6 * ratio;
    }
  }
  ctx.restore();
}

function clamp(x: number, bbox: uPlot.BBox): number {
  return Math.min(Math.max(x, bbox.left), bbox.left + bbox.width);
}
