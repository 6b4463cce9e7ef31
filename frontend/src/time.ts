import type { Mark } from './charts/overlay';
import { clock, count, duration } from './format';
import type { XAxis } from './link';
import type { Clock } from './models/axis';
import { counting } from './models/findings';
import { ticks } from './models/ticks';
import type { Finding, Overview } from './wire';

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

/** Events worth a line in a chart, and the pinned step. Epochs and schedules are too many to draw. */
export function marks(overview: Overview, time: Clock, axis: XAxis, pin: number | null): Mark[] {
  const events = overview.events
    .filter((event) => !QUIET.has(event.kind) && event.step > 0)
    .map(
      (event): Mark => ({
        x: time.position(event.step, axis),
        label: MARK[event.kind] ?? event.kind.replace('_', ' '),
        text: event.text,
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

/** Where the run is expected to have converged, by the first finding that says so with an interval. */
export function convergence(overview: Overview, time: Clock, axis: XAxis): [number, number] | null {
  const { findings, last_step } = overview;
  const interval = counting(findings).find((f) => f.steps_interval !== null)?.steps_interval;
  if (!interval || last_step === null) return null;
  const [low, high] = interval.map((n) => (n === 'never' ? Number.POSITIVE_INFINITY : last_step + n));
  if (!Number.isFinite(low)) return null;
  const at = (step: number) => (Number.isFinite(step) ? time.position(step, axis) : step);
  return [at(low), at(high)];
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
