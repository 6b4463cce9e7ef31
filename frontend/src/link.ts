export type XAxis = 'step' | 'relative' | 'wall';
export const X_AXES: readonly XAxis[] = ['step', 'relative', 'wall'];
export const HEAT_ROWS = [
  'distance_rms',
  'steps_to_converge',
  'mean_error_p95',
  'variance_error_p95',
  'variance_ratio',
] as const;
export type HeatRow = (typeof HEAT_ROWS)[number];

export interface View {
  run: string | null;
  compare: readonly string[];
  finding: string | null;
  layer: number | null;
  /** A step the user pinned. */
  step: number | null;
  axis: XAxis;
  row: HeatRow;
  /** 0 (none) to 0.99. */
  smoothing: number;
  /** Zoomed range in units of the x axis, null for all of it. */
  range: readonly [number, number] | null;
  live: boolean;
  /** What-if momentum, null until the slider is moved. */
  momentum: number | null;
}

export const DEFAULT_VIEW: View = {
  run: null,
  compare: [],
  finding: null,
  layer: null,
  step: null,
  axis: 'step',
  row: 'distance_rms',
  smoothing: 0,
  range: null,
  live: true,
  momentum: null,
};

const PREFIX = 'p.bn_lens.';

/** Reads the plugin's part of TensorBoard's location hash, e.g. `#bn_lens&p.bn_lens.run=exp1`. */
export function readLink(hash: string): Partial<View> {
  const found: Partial<View> = {};
  const compare: string[] = [];
  for (const [key, value] of pairs(hash)) {
    if (key === 'run') found.run = value;
    else if (key === 'compare') compare.push(value);
    else if (key === 'finding') found.finding = value;
    else if (key === 'layer' && /^\d+$/.test(value)) found.layer = Number(value);
    else if (key === 'step' && /^\d+$/.test(value)) found.step = Number(value);
    else if (key === 'x' && X_AXES.includes(value as XAxis)) found.axis = value as XAxis;
    else if (key === 'row' && HEAT_ROWS.includes(value as HeatRow)) found.row = value as HeatRow;
    else if (key === 'smoothing') found.smoothing = Math.min(0.99, Math.max(0, Number(value) || 0));
  }
  if (compare.length) found.compare = compare;
  return found;
}

/** The same hash with the plugin's part replaced; the parts of the host and of other plugins do not change. */
export function writeLink(hash: string, view: View): string {
  const kept = hash
    .replace(/^#/, '')
    .split('&')
    .filter((part) => part && !decode(part).startsWith(PREFIX));
  const own: [string, string][] = [];
  if (view.run !== null) own.push(['run', view.run]);
  for (const run of view.compare) own.push(['compare', run]);
  if (view.finding !== null) own.push(['finding', view.finding]);
  if (view.layer !== null) own.push(['layer', String(view.layer)]);
  if (view.step !== null) own.push(['step', String(view.step)]);
  if (view.axis !== DEFAULT_VIEW.axis) own.push(['x', view.axis]);
  if (view.row !== DEFAULT_VIEW.row) own.push(['row', view.row]);
  if (view.smoothing) own.push(['smoothing', String(view.smoothing)]);
  const parts = own.map(([key, value]) => `${PREFIX}${key}=${encodeURIComponent(value)}`);
  return `#${[...kept, ...parts].join('&')}`;
}

/** Whether a link says of the view what it is already: switching tabs changes the hash, but not our part of it. */
export function sameLink(linked: Partial<View>, view: View): boolean {
  return writeLink('', { ...DEFAULT_VIEW, ...linked }) === writeLink('', view);
}

function pairs(hash: string): [string, string][] {
  return hash
    .replace(/^#/, '')
    .split('&')
    .flatMap((part): [string, string][] => {
      const at = part.indexOf('=');
      const key = decode(part.slice(0, Math.max(at, 0)));
      return key.startsWith(PREFIX) ? [[key.slice(PREFIX.length), decode(part.slice(at + 1))]] : [];
    });
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    // A hash that was cut in the middle of an escape is still worth reading.
    return text;
  }
}
