import type { Mark } from './charts/overlay';
import { clock, count, duration } from './format';
import type { XAxis } from './link';
import type { Clock } from './models/axis';
import { counting } from './models/findings';
import { ticks } from './models/ticks';
import type { Finding, Overview, RunEvent } from './wire';

/** How an x axis is written. */
export const X_FORMAT: Record<XAxis, (x: number) => string> = {
  step: (x) => (x % 1 ? String(Math.round(x * 10) / 10) : count(x)),
  relative: duration,
  wall: clock,
};

/** Least distance of labels on each axis, CSS pixels. */
const SPACE: Record<XAxis, number> = { step: 70, relative: 90, wall: 110 };

/** Where an x axis has its labels. */
export function splits(axis: XAxis): (from: number, to: number, width: number) => number[] {
  return (from, to, width) => ticks(from, to, width / SPACE[axis], axis);
}

/** Names that say more than the kind of an event does. */
const MARK: Record<string, string> = {
  outside: 'set from outside',
  replaced: 'statistics replaced',
  fit: 'new fit',
  recompile: 'recompiled',
};

const QUIET = new Set(['start', 'epoch', 'learning_rate', 'note']);

/** Events worth a line in a chart. Epochs and schedules are too many to draw. */
export function notable(events: readonly RunEvent[]): RunEvent[] {
  return events.filter(({ kind }) => !QUIET.has(kind));
}

/** Marks of notable events and of the pinned step. */
export function marks(overview: Overview, time: Clock, axis: XAxis, pin: number | null): Mark[] {
  // What happened at one step has one mark.
  const steps = new Map<number, RunEvent[]>();
  for (const event of notable(overview.events))
    if (event.step > 0) steps.set(event.step, [...(steps.get(event.step) ?? []), event]);
  const events = [...steps].map(
    ([step, together]): Mark => ({
      x: time.position(step, axis),
      label: [...new Set(together.map(({ kind }) => MARK[kind] ?? kind.replace('_', ' ')))].join(', '),
      text: together.map(({ text }) => text).join('; '),
      kind: 'event',
    }),
  );
  if (pin === null) return events;
  return [{ x: time.position(pin, axis), label: `step ${count(pin)}`, kind: 'pin' }, ...events];
}

/** A position on the axis in words: the step, and the time where that is the axis. */
export function stepAt(x: number, clock: Clock, axis: XAxis): string {
  const step = `step ${count(clock.step(x, axis))}`;
  return axis === 'step' ? step : `${step} · ${X_FORMAT[axis](x)}`;
}

/** The first finding that says with an interval when its layers have converged. */
function converging(overview: Overview): Finding | null {
  const found = counting(overview.findings).find(({ steps_interval: i }) => i !== null && i[0] !== 'never');
  return found ?? null;
}

/** The ends of the interval of the steps to convergence as shares of their estimate; null where either is not known. */
export function paceOf(overview: Overview): [number, number] | null {
  const { steps_interval: interval = null, steps_to_converge: steps = null } = converging(overview) ?? {};
  if (!interval || typeof steps !== 'number' || !(steps > 0)) return null;
  const [fast, slow] = interval.map((end) => (end === 'never' ? Number.POSITIVE_INFINITY : end / steps));
  return fast > 0 && fast < slow && Number.isFinite(slow) ? [fast, slow] : null;
}

/** Where the run is expected to have converged. */
export function convergence(overview: Overview, time: Clock, axis: XAxis): [number, number] | null {
  const { last_step } = overview;
  const interval = converging(overview)?.steps_interval;
  if (!interval || last_step === null) return null;
  const at = (updates: number | 'never') =>
    updates === 'never' ? Number.POSITIVE_INFINITY : time.position(last_step + updates, axis);
  return [at(interval[0]), at(interval[1])];
}

/** The steps of a finding as a range of the x axis. */
export function shadeOf(
  finding: Finding | null,
  overview: Overview,
  time: Clock,
  axis: XAxis,
): [number, number] | null {
  if (!finding || finding.first_step === null) return null;
  const last = finding.last_step ?? overview.last_step ?? finding.first_step;
  return [time.position(finding.first_step, axis), time.position(last, axis)];
}
