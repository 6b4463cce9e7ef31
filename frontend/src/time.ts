import type { Mark } from './charts/overlay';
import { clock, count, duration } from './format';
import type { XAxis } from './link';
import type { Clock } from './models/axis';
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

const QUIET = new Set(['start', 'epoch', 'learning_rate', 'note']);

/** Events worth a line in a chart, and the pinned step. Epochs and schedules are too many to draw. */
export function marks(overview: Overview, time: Clock, axis: XAxis, pin: number | null): Mark[] {
  const events = overview.events
    .filter((event) => !QUIET.has(event.kind) && event.step > 0)
    .map(
      (event): Mark => ({
        x: time.position(event.step, axis),
        label: event.kind.replace('_', ' '),
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
