import type uPlot from 'uplot';
import { color, FONT } from '../theme';

export interface Mark {
  x: number;
  label: string;
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
