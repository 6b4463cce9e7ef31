import { expect, it } from 'vitest';
import table from '../../tests/fixtures/numbers.json';
import { duration, momentum, momentumRange, number, percent, plural, signed, steps } from '../src/format';

it.each([
  [null, '–'],
  [Number.NaN, '–'],
  [Number.POSITIVE_INFINITY, '∞'],
  [Number.NEGATIVE_INFINITY, '−∞'],
])('number %s is %s', (value, text) => expect(number(value)).toBe(text));

type Row = [number, string];

it.each(table.number as Row[])('writes %s as Python does: %s', (value, text) =>
  expect(number(value)).toBe(text.replace(/^-/, '−')),
);

it('says how many and how far', () => {
  expect(steps('never')).toBe('never');
  expect(steps(4498)).toBe('4,498');
  expect(steps(null)).toBe('–');
  expect(signed(2)).toBe('+2');
  expect(signed(-2)).toBe('−2');
  expect(percent(0.0081)).toBe('0.81%');
  expect(plural(1, 'layer')).toBe('1 layer');
});

it('keeps the digits of a momentum that matter', () => {
  expect(momentum(0.9, 'keras')).toBe('0.9');
  expect(momentum(0.9997, 'keras')).toBe('0.9997');
  expect(momentum(0.98741, 'keras')).toBe('0.987');
  expect(momentum(1, 'keras')).toBe('1');
});

it('gives a momentum as users of PyTorch set it: the share that an update replaces', () => {
  expect(momentum(0.999, 'torch')).toBe('0.001');
  expect(momentum(0.9, 'torch')).toBe('0.1');
  expect(momentum(0.98741, 'torch')).toBe('0.013');
  expect(momentum(1, 'torch')).toBe('0');
  expect(momentum(null, 'torch')).toBe('–');
  expect(momentumRange([0.9, 0.999], 'torch')).toBe('0.001 to 0.1');
  expect(momentumRange([0.9, 0.999], 'keras')).toBe('0.9 to 0.999');
  expect(momentumRange([], 'torch')).toBe('–');
});

it('writes times in two units', () => {
  expect(duration(4.25)).toBe('4.3 s');
  expect(duration(200)).toBe('3 min 20 s');
  expect(duration(7500)).toBe('2 h 5 min');
});
