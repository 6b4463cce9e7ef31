import type { XAxis } from '../link';

const ROUND = [1, 2, 5, 10];
// Seconds, minutes and hours do not divide by ten.
const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

/** More than any axis has room for. */
const MOST = 1000;

/**
 * Round positions between two ends, at most about `wanted` of them. Far from zero, where neighbouring numbers lie more
 * than a gap apart, there are fewer.
 */
export function ticks(from: number, to: number, wanted: number, axis: XAxis | 'value'): number[] {
  const span = to - from;
  if (!(span > 0 && span < Number.POSITIVE_INFINITY)) return Number.isFinite(from) ? [from] : [];
  const rough = span / Math.min(Math.max(wanted, 1), MOST);
  const round = axis === 'step' || axis === 'value' || rough > 86400 || rough < 1;
  const gap = round ? decimal(rough, axis) : seconds(rough);
  const first = Math.ceil(from / gap - 1e-9);
  const found: number[] = [];
  for (let i = 0; i <= MOST; i++) {
    const at = (first + i) * gap + 0;
    if (!(at <= to + gap * 1e-9)) break;
    if (at !== found[found.length - 1]) found.push(at);
  }
  return found;
}

const ROUND_DIGITS = [1, 2, 5];
const ALL_DIGITS = [1, 2, 3, 4, 5, 6, 7, 8, 9];

/** 1, 2 and 5 of every decade between two positive ends. */
export function logTicks(low: number, high: number, digits: readonly number[] = ROUND_DIGITS): number[] {
  if (!(low > 0 && high < Number.POSITIVE_INFINITY)) return [];
  const found: number[] = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const digit of digits) {
      // Not digit * 10 ** power, which is 1.0000000000000001e-24 where 1e-24 is meant.
      const at = Number(`${digit}e${power}`);
      if (at >= low && at <= high) found.push(at);
    }
  }
  return found;
}

/**
 * Every digit of every decade of a log axis. uPlot's own steps never reach the end where a value lies below 1e-32,
 * as the variance of a channel does that died.
 */
export function logSplits(low: number, high: number): number[] {
  return logTicks(low, high, ALL_DIGITS);
}

/** The same for an axis that is linear up to a threshold on both sides of zero. */
export function asinhSplits(low: number, high: number, threshold: number): number[] {
  const below = logSplits(Math.max(threshold, -high), -low).map((at) => -at);
  const zero = low <= 0 && high >= 0 ? [0] : [];
  return [...below.reverse(), ...zero, ...logSplits(Math.max(threshold, low), high)];
}

/**
 * Which of a log axis' splits are kept, null for the others: 1, 2 and 5 in a short range, whole decades in a long
 * one, and in a very long one every second or third.
 */
export function thinLog(splits: readonly number[], pixels: number, least: number): (number | null)[] {
  const logs = splits.map((value) => Math.log10(Math.abs(value)));
  const decades = Math.max(...logs) - Math.min(...logs);
  const stride = Math.max(1, Math.ceil((decades * least) / Math.max(pixels, 1)));
  return splits.map((value, i) => {
    const power = Math.floor(logs[i] + 1e-9);
    const digit = Math.round(Math.abs(value) / 10 ** power);
    if (decades <= 1.5 && stride === 1) return digit === 1 || digit === 2 || digit === 5 ? value : null;
    return value === 0 || (digit === 1 && power % stride === 0) ? value : null;
  });
}

function decimal(rough: number, axis: XAxis | 'value'): number {
  const power = 10 ** Math.floor(Math.log10(rough));
  const gap = (ROUND.find((r) => r * power >= rough * (1 - 1e-9)) as number) * power;
  return axis === 'step' ? Math.max(gap, 1) : gap;
}

function seconds(rough: number): number {
  return SECONDS.find((s) => s >= rough) ?? 86400;
}
