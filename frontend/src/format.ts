/** Numbers as text. Nothing here knows what a number means; units are the caller's. */

const NONE = '–';

/**
 * Three significant digits; whole numbers with separators from 1,000; scientific below 1e-4 and from 1e7. The rules of
 * tb_bnlens/numbers.py: both are tested with tests/fixtures/numbers.json.
 */
export function number(value: number | null | undefined): string {
  if (value === null || value === undefined || Number.isNaN(value)) return NONE;
  if (!Number.isFinite(value)) return value > 0 ? '∞' : '−∞';
  if (value === 0) return '0';
  const size = Math.abs(Number(value.toPrecision(3)));
  if (size < 1e-4 || size >= 1e7) {
    const [mantissa, exponent] = value.toExponential(2).split('e');
    return minus(`${trim(mantissa)}e${Number(exponent)}`);
  }
  if (size >= 1000) return minus(grouped(Number(value.toFixed(0))));
  return minus(trim(value.toPrecision(3)));
}

/** A whole number, grouped. */
export function count(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  return grouped(Math.round(value));
}

export function signed(value: number | null | undefined): string {
  const text = number(value);
  return value !== null && value !== undefined && value > 0 && text !== '0' ? `+${text}` : text;
}

/** Updates, "never", or a dash where no estimate is given. */
export function steps(value: number | 'never' | null | undefined): string {
  if (value === 'never' || value === Number.POSITIVE_INFINITY) return 'never';
  return count(value ?? null);
}

/** An interval of updates, "90 to 120"; null where none is known, and where both ends are the same. */
export function interval(ends: readonly (number | 'never')[] | null): string | null {
  if (!ends) return null;
  const [low, high] = ends.map(steps);
  return low === high ? null : `${low} to ${high}`;
}

/** An interval of updates in words; empty where there is none. */
export function intervalText(ends: readonly (number | 'never')[] | null): string {
  const shown = interval(ends);
  return shown ? `80% interval: ${shown}.` : '';
}

export function percent(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value * 100);
  return `${size >= 10 ? Math.round(value * 100) : trim((value * 100).toPrecision(2))}%`;
}

/**
 * A momentum as users of the framework set it: Keras' is the share that an update keeps, which is the given one, and
 * PyTorch's the share that it replaces. It keeps the digits that matter, those of the share that is replaced.
 */
export function momentum(kept: number | null | undefined, framework: string): string {
  if (kept === null || kept === undefined || Number.isNaN(kept)) return NONE;
  const set = framework === 'torch' ? 1 - kept : kept;
  if (kept >= 1 || kept <= 0) return String(set);
  const digits = Math.max(1, Math.ceil(-Math.log10(1 - kept)) + 1);
  return trim(set.toFixed(Math.min(digits, 7)));
}

/** The lowest and the highest momentum of several layers; a dash where there are none. */
export function momentumRange(kept: readonly number[], framework: string): string {
  const shown = kept.map((value) => momentum(value, framework));
  const [low, high] = framework === 'torch' ? shown.reverse() : shown;
  if (low === undefined) return NONE;
  return low === high ? low : `${low} to ${high}`;
}

/** 45 s, 3 min 20 s, 2 h 5 min. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return NONE;
  const sign = seconds < 0 ? '−' : '';
  const size = Math.abs(seconds);
  if (size < 10) return `${sign}${trim(size.toFixed(1))} s`;
  if (size < 60) return `${sign}${Math.round(size)} s`;
  if (size < 3600) return `${sign}${whole(size, 60)} min${rest(size % 60, 1, ' s')}`;
  return `${sign}${whole(size, 3600)} h${rest(size % 3600, 60, ' min')}`;
}

export function clock(unixSeconds: number): string {
  const date = new Date(unixSeconds * 1000);
  return Number.isNaN(date.getTime()) ? NONE : date.toLocaleTimeString('en-GB');
}

export function plural(size: number, noun: string): string {
  return `${count(size)} ${noun}${size === 1 ? '' : 's'}`;
}

/** Not toLocaleString: its first call loads a library for some 10 ms, before anything is painted. */
function grouped(whole: number): string {
  return String(whole).replace(/\B(?=(\d{3})+$)/g, ',');
}

function whole(size: number, unit: number): number {
  return Math.floor(size / unit);
}

function rest(size: number, unit: number, name: string): string {
  const left = Math.floor(size / unit);
  return left ? ` ${left}${name}` : '';
}

function trim(text: string): string {
  return text.includes('.') && !text.includes('e') ? text.replace(/\.?0+$/, '') : text;
}

function minus(text: string): string {
  return text.replace(/^-/, '−');
}
