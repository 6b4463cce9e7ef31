import { color, FONT } from './theme';

const LONGEST = 120;
const REVOKE_MS = 60_000;

/** A name that every file system takes. A long one loses its middle: its end says what is in the file. */
export function fileName(name: string): string {
  const safe = name.replace(/[^\w.-]+/g, '_');
  const half = LONGEST / 2;
  return safe.length > LONGEST ? `${safe.slice(0, half - 1)}_${safe.slice(-half)}` : safe;
}

/** Hands a file to the user. Nothing leaves the page: the file is made here. */
export function save(name: string, content: Blob): void {
  const url = URL.createObjectURL(content);
  const anchor = document.createElement('a');
  anchor.href = url;
  anchor.download = fileName(name);
  anchor.click();
  // The browser fetches it after the click, and may be busy.
  window.setTimeout(() => URL.revokeObjectURL(url), REVOKE_MS);
}

export function saveText(name: string, type: string, text: string): void {
  save(name, new Blob([text], { type }));
}

/** A colour scale: its colours from low to high, and the words at either end. */
export interface PictureScale {
  stops: readonly string[];
  low: string;
  high: string;
}

/** A chart's canvas with its title, legend or colour scale, and the theme's background, as a PNG. */
export function savePicture(
  name: string,
  canvas: HTMLCanvasElement,
  title: string,
  legend: readonly { label: string; color: string }[],
  scale?: PictureScale,
): void {
  const ratio = devicePixelRatio;
  const top = (legend.length || scale ? 46 : 28) * ratio;
  const picture = document.createElement('canvas');
  picture.width = canvas.width;
  picture.height = canvas.height + top;
  const ctx = picture.getContext('2d') as CanvasRenderingContext2D;
  ctx.fillStyle = color('panel');
  ctx.fillRect(0, 0, picture.width, picture.height);
  ctx.textBaseline = 'top';
  ctx.fillStyle = color('text');
  ctx.font = FONT.replace('11px', `600 ${13 * ratio}px`);
  ctx.fillText(title, 10 * ratio, 8 * ratio);
  ctx.font = FONT.replace('11px', `${11 * ratio}px`);
  let left = 10 * ratio;
  for (const entry of legend) {
    ctx.fillStyle = entry.color.startsWith('#') ? entry.color : color(entry.color);
    ctx.fillRect(left, 32 * ratio, 14 * ratio, 4 * ratio);
    ctx.fillStyle = color('text');
    ctx.fillText(entry.label, left + 18 * ratio, 28 * ratio);
    left += ctx.measureText(entry.label).width + 34 * ratio;
  }
  if (scale) drawScale(ctx, scale, left, ratio);
  ctx.drawImage(canvas, 0, top);
  picture.toBlob((blob) => blob && save(name, blob), 'image/png');
}

function drawScale(
  ctx: CanvasRenderingContext2D,
  { stops, low, high }: PictureScale,
  left: number,
  ratio: number,
) {
  const from = left + ctx.measureText(low).width + 6 * ratio;
  const width = 180 * ratio;
  const ramp = ctx.createLinearGradient(from, 0, from + width, 0);
  stops.forEach((stop, i) => {
    ramp.addColorStop(i / (stops.length - 1), stop);
  });
  ctx.fillStyle = ramp;
  ctx.fillRect(from, 30 * ratio, width, 10 * ratio);
  ctx.fillStyle = color('text');
  ctx.fillText(low, left, 28 * ratio);
  ctx.fillText(high, from + width + 6 * ratio, 28 * ratio);
}
