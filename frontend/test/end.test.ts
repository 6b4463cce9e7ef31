import { describe, expect, it } from 'vitest';
import { endOf, endText, isMoment } from '../src/models/end';

const RUN = {
  ended: null,
  ended_step: null,
  last_record: 1000,
  last_step: 200,
  planned_steps: null,
  imported: false,
  checked: false,
};

describe('how a run ended', () => {
  it('goes by the age of the last record where the record says nothing', () => {
    expect(endOf(RUN, 1010)).toBe('running');
    expect(endOf(RUN, 9000)).toBe('unknown');
    expect(endText(RUN, 9000)).toContain('may have been killed');
  });
  it('speaks of a plan only where there was one', () => {
    const over = { ...RUN, ended: 'planned' as const, ended_step: 200 };
    expect(endOf(over, 1010)).toBe('ended');
    expect(endText(over, 1010)).toBe('Ended at step 200.');
    expect(endOf({ ...over, planned_steps: 200 }, 1010)).toBe('planned');
    expect(endText({ ...over, planned_steps: 200 }, 1010)).toBe('Ended as planned, at step 200.');
  });
  it('does not call an old check killed', () => {
    const check = { ...RUN, checked: true };
    expect(endOf(check, 9000)).toBe('check');
    expect(endText(check, 9000)).toBe('A check of the model as it is, without training.');
  });
  it('draws no course of a check alone', () => {
    expect(isMoment({ checked: true, records: 1 })).toBe(true);
    expect(isMoment({ checked: true, records: 30 })).toBe(false);
    expect(isMoment({ checked: false, records: 1 })).toBe(false);
  });
});
