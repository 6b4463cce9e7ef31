import type { XAxis } from '../link';

const ROUND = [1, 2, 5, 10];
// Seconds, minutes and hours do not divide by ten.
const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

/** Round positions between two ends, at most about `wanted` of them. */
export function ticks(from: number, to: number, wanted: number, axis: XAxis): number[] {
  const span = to - from;
  if (!(span > 0)) return Number.isFinite(from) ? [from] : [];
  const rough = span / Math.max(wanted, 1);
  const gap = axis === 'step' || rough > 86400 || rough < 1 ? decimal(rough, axis) : seconds(rough);
  const found: number[] = [];
  for (let i = Math.ceil(from / gap - 1e-9); i * gap <= to + gap * 1e-9; i++) found.push(i * gap + 0);
  return found;
}

/** 1, 2 and 5 of every decade between two positive ends. */
export function logTicks(low: number, high: number): number[] {
  const found: number[] = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const digit of [1, 2, 5]) {
      const at = digit * 10 ** power;
      if (at >= low && at <= high) found.push(at);
    }
  }
  return found;
}

function decimal(rough: number, axis: XAxis): number {
  const power = 10 ** Math.floor(Math.log10(rough));
  const gap = (ROUND.find((r) => r * power >= rough * (1 - 1e-9)) as number) * power;
  return axis === 'step' ? Math.max(gap, 1) : gap;
}

function seconds(rough: number): number {
  return SECONDS.find((s) => s >= rough) ?? 86400;
}
