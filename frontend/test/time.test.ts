import { describe, expect, it } from 'vitest';
import { Clock } from '../src/models/axis';
import { convergence, marks } from '../src/time';
import type { RunEvent } from '../src/wire';
import { finding, overview } from './samples';

const clock = new Clock([0, 100, 200], [1000, 1010, 1020]);

describe('marks on the time axis', () => {
  const event = (step: number, kind: string, text: string): RunEvent => ({ step, kind, text, layers: [] });
  const events = [
    event(0, 'start', 'recording begins'),
    event(50, 'epoch', 'epoch ends'),
    event(100, 'fit', 'fit 2 of this network begins'),
    event(100, 'recompile', 'compiled again'),
    event(150, 'outside', 'moved by 3 sd in 2 layers'),
    event(160, 'replaced', 'loaded from elsewhere'),
  ];
  it('are of notable events with their text, one for each step', () => {
    expect(marks(overview({ events }), clock, 'step', null)).toEqual([
      {
        x: 100,
        label: 'new fit, recompiled',
        text: 'fit 2 of this network begins; compiled again',
        kind: 'event',
      },
      { x: 150, label: 'set from outside', text: 'moved by 3 sd in 2 layers', kind: 'event' },
      { x: 160, label: 'statistics replaced', text: 'loaded from elsewhere', kind: 'event' },
    ]);
    expect(marks(overview({ events }), clock, 'relative', null)[0].x).toBe(10);
  });
  it('begin with the pin', () => {
    expect(marks(overview(), clock, 'step', 42)).toEqual([{ x: 42, label: 'step 42', kind: 'pin' }]);
  });
});

describe('where a run is expected to have converged', () => {
  const at = (...intervals: ((number | 'never')[] | null)[]) =>
    convergence(
      overview({ findings: intervals.map((steps_interval) => finding({ steps_interval })) }),
      clock,
      'step',
    );
  it('is counted from the last step', () => {
    expect(at(null, [100, 300])).toEqual([500, 700]);
    expect(at([100, 'never'])).toEqual([500, Number.POSITIVE_INFINITY]);
  });
  it('is not known without an interval, or where waiting does not help', () => {
    expect(at(null)).toBeNull();
    expect(at(['never', 'never'])).toBeNull();
    expect(at(['never', 'never'], [10, 20])).toEqual([410, 420]);
  });
});
