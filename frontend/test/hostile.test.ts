import { expect, it } from 'vitest';
import { clock, duration } from '../src/format';
import { Clock } from '../src/models/axis';
import { apart } from '../src/models/extent';
import { columns, lastEnd } from '../src/models/heat';
import { compilePattern } from '../src/models/pattern';
import { nameFilter, sharedFolders } from '../src/models/table';
import { asinhSplits, logTicks, ticks } from '../src/models/ticks';

const FAR = 2 ** 62;

it.each([
  [FAR, FAR + 1024],
  [FAR, FAR],
  [-FAR, FAR],
  [1e18, 1e18 + 256],
  [0, Number.POSITIVE_INFINITY],
  [Number.NaN, 1],
  [0, 5e-324],
  [-1e308, 1e308],
])('ticks from %s to %s end, and lie between', (from, to) => {
  for (const axis of ['step', 'relative', 'wall', 'value'] as const) {
    const found = ticks(from, to, 10, axis);
    expect(found.length).toBeLessThan(40);
    for (const at of found) expect(at >= from - 1 && at <= to + 1).toBe(true);
    expect(new Set(found).size).toBe(found.length);
  }
});

it('has no ticks on a log axis without a positive, finite range', () => {
  expect(logTicks(0, 10)).toEqual([]);
  expect(logTicks(-5, 10)).toEqual([]);
  expect(logTicks(1, Number.POSITIVE_INFINITY)).toEqual([]);
  expect(asinhSplits(Number.NaN, Number.NaN, 1e-3)).toEqual([]);
});

it('gives a single position far from zero a range that is not empty', () => {
  const [from, to] = apart(FAR, FAR);
  expect(to).toBeGreaterThan(from);
  const x = Float64Array.of(FAR);
  expect(lastEnd(x)).toBeGreaterThan(FAR);
  expect(columns(x, FAR, lastEnd(x), 4, lastEnd(x)).length).toBe(8);
});

it('writes times of no calendar', () => {
  expect(clock(1e18)).toBe('–');
  expect(duration(1e18)).toContain(' h');
  expect(new Clock([-FAR, FAR], [1e18, 1e18]).position(0, 'wall')).toBe(1e18);
});

const CASES: [string, string[]][] = [
  ['block_1', ['block_1/bn', 'BLOCK_12', 'block_2']],
  ['^block_\\d+/bn$', ['block_12/bn', 'x/block_1/bn', 'block_/bn', 'block_3/bn2']],
  ['a|b(c|d)*e', ['a', 'be', 'bcdce', 'bc', 'xyz']],
  ['[a-c_]{2,3}x?$', ['ab', 'abcx', 'x', 'a', 'zz_a']],
  ['[^/]+/(?:bn|norm)\\.?', ['a/bn', 'a/norm.', '/bn', 'a/x']],
  ['(a+)+$', ['aaa', 'aab']],
  ['x{0}y|\\D\\W', ['y', 'a-', '12', '1-']],
  ['[A-C]\\S', ['b1', 'd1', 'C ']],
  ['', ['', 'a']],
  ['a{2}', ['a', 'aa']],
  ['(ab?){2,}c', ['aac', 'abc', 'ababc']],
];

it.each(CASES)('finds %s where the browser does', (pattern, texts) => {
  const test = compilePattern(pattern);
  for (const text of texts) expect([text, test(text)]).toEqual([text, new RegExp(pattern, 'i').test(text)]);
});

it.each(['(', 'a)', '[a', '*', 'a{2,1}', 'a\\', '\\1', '(?=a)', 'a{999}{999}', 'a'.repeat(300)])(
  'takes %s for plain text',
  (pattern) => {
    const filter = nameFilter(pattern);
    expect(filter.valid).toBe(false);
    expect(filter.test(`x${pattern.toUpperCase()}`)).toBe(true);
    expect(filter.test('other')).toBe(false);
  },
);

it('searches long names for patterns that take a backtracking engine years', () => {
  const names = Array.from({ length: 200 }, () => `${'a'.repeat(100_000)}!`);
  const began = performance.now();
  for (const pattern of ['(a+)+b', '(a|a)*b', '.*.*.*.*.*b']) {
    const { test } = nameFilter(pattern);
    expect(names.some(test)).toBe(false);
  }
  expect(performance.now() - began).toBeLessThan(20_000);
});

it('finds the folders that long names share', () => {
  const long = `${'f/'.repeat(50_000)}`;
  expect(sharedFolders(Array.from({ length: 50 }, (_, i) => `${long}bn${i}`))).toBe(long);
  expect(sharedFolders(['a/bn', 'b/bn'])).toBe('');
  expect(sharedFolders(['ab/bn', 'ac/bn'])).toBe('');
});
