import { describe, expect, it } from 'vitest';
import { nameFilter, sharedFolders, sortLayers, visibleRows } from '../src/models/table';
import { layer } from './samples';

const layers = [
  layer({ index: 0, order: 2, name: 'c', steps_to_converge: 5 }),
  layer({ index: 1, order: 0, name: 'a', steps_to_converge: 'never' }),
  layer({ index: 2, order: 1, name: 'b', steps_to_converge: null }),
];
const names = (key: Parameters<typeof sortLayers>[1]['key'], descending = false) =>
  sortLayers(layers, { key, descending })
    .map((l) => l.name)
    .join('');

describe('layer table', () => {
  it('is in the order of execution', () => expect(names('order')).toBe('abc'));
  it('puts never above every number and no estimate below', () => expect(names('steps', true)).toBe('acb'));
  it('leaves equal layers in network order, either way', () => {
    expect(names('state')).toBe('abc');
    expect(names('state', true)).toBe('abc');
  });
  it('filters by regex, and by plain text where that is none', () => {
    expect(nameFilter('block_1\\d_').test('Block_12_BN')).toBe(true);
    const broken = nameFilter('bn(');
    expect([broken.valid, broken.test('a/BN(1)')]).toEqual([false, true]);
  });
  it('finds the folders that all names share', () => {
    expect(sharedFolders(['net/a/bn_1', 'net/a/bn_2', 'net/ab'])).toBe('net/');
    expect(sharedFolders(['bn_1', 'bn_2'])).toBe('');
    expect(sharedFolders(['net/bn'])).toBe('');
  });
  it('draws only the rows in view', () => {
    expect(visibleRows(5000, 28000, 560, 28)).toEqual({ first: 992, end: 1028 });
    expect(visibleRows(3, 0, 560, 28)).toEqual({ first: 0, end: 3 });
  });
});
