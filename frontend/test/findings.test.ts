import { describe, expect, it } from 'vitest';
import {
  counting,
  explainedBy,
  fixFile,
  hasAnotherCause,
  isSilenced,
  keyFigures,
  runSign,
} from '../src/models/findings';
import { finding, LOSSES, overview } from './samples';

const cause = finding({ rule: 'cause', severity: 'warning', title: 'Cause', fix: 'cause()' });
const symptom = finding({ rule: 'symptom', explained_by: 'cause', fix: 'symptom()' });
const other = finding({ rule: 'other', status: 'another_cause', explained_by: 'cause', fix: 'other()' });
const quiet = finding({ rule: 'quiet', silenced: true, fix: 'quiet()' });
const worse = finding({ rule: 'worse', severity: 'error', title: 'Worse', fix: 'worse()\n' });
const passed = finding({ rule: 'passed', status: 'pass', severity: 'none', fix: 'passed()' });
const all = [cause, symptom, other, quiet, worse, passed];

describe('a finding counts', () => {
  it('where it failed, is not silenced and has no other cause; the worst first', () => {
    expect(counting(all).map(({ rule }) => rule)).toEqual(['worse', 'cause']);
  });
  it('and the others have a list of their own', () => {
    expect(all.filter(hasAnotherCause)).toEqual([symptom, other]);
    expect(all.filter(isSilenced)).toEqual([quiet]);
    expect(explainedBy(cause, all)).toEqual([symptom, other]);
  });
  it('and only then its fix is saved', () => {
    expect(fixFile(all)).toBe('# Worse\nworse()\n\n# Cause\ncause()\n');
  });
});

it('is decided by at most three figures, those that are compared with another before the others', () => {
  const evidence = (label: string, limit: number | null, value: number | null = 1) => ({
    label,
    value,
    limit,
    unit: '',
    against: 'threshold',
  });
  const many = finding({
    share: 0.9,
    evidence: { a: evidence('a', null), b: evidence('b', 2), c: evidence('c', 3), d: evidence('d', 4, null) },
  });
  expect(keyFigures(many)).toEqual(['steps', 'share', evidence('b', 2)]);
  expect(keyFigures({ ...many, steps_to_converge: null, share: null })).toEqual([
    evidence('b', 2),
    evidence('c', 3),
    evidence('a', null),
  ]);
});

describe('the sign of a run', () => {
  const run = overview({ severity: 'none', findings: [passed] });
  it('is its severity', () => {
    expect(runSign({ ...run, severity: 'warning' })).toBe('warning');
    expect(runSign(run)).toBe('none');
  });
  it('is no tick where a failure is silenced or the losses were not measured', () => {
    expect(runSign({ ...run, findings: [quiet] })).toBe('silenced');
    expect(runSign({ ...run, losses: { ...LOSSES, inference: null } })).toBe('not_evaluated');
  });
});
