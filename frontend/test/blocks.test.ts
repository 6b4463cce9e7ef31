import { describe, expect, it } from 'vitest';
import { blockRows, blocksOf } from '../src/models/blocks';
import { layer } from './samples';

describe('blocks of layers', () => {
  it('are what several layers share up to a number or a folder', () => {
    const names = [
      'bn_Conv1',
      'block_1_expand_BN',
      'block_1_project_BN',
      'block_10_expand_BN',
      'block_10_BN',
    ];
    expect(blocksOf(names)).toEqual([null, 'block_1', 'block_1', 'block_10', 'block_10']);
    expect(
      blocksOf(['conv2_block1_1_bn', 'conv2_block1_2_bn', 'conv2_block2_1_bn', 'conv3_block1_1_bn']),
    ).toEqual(['conv2_block1', 'conv2_block1', 'conv2', null]);
    expect(blocksOf(['a/bn', 'a/bn_1', 'b/bn', 'b/c/bn'])).toEqual(['a', 'a', 'b', 'b']);
  });
  it('are none of layers that are only numbered, or that all share a folder', () => {
    expect(blocksOf(['bn', 'bn_1', 'bn_2'])).toEqual([null, null, null]);
    expect(blocksOf(['model/bn_1', 'model/bn_2'])).toEqual([null, null]);
  });
  it('have a head, and folded nothing else', () => {
    const layers = ['stem', 'b_1_a', 'b_1_b', 'b_2_a', 'b_2_b'].map((name, index) => layer({ name, index }));
    const blocks = new Map(blocksOf(layers.map(({ name }) => name)).map((block, i) => [i, block]));
    const rows = (folded: string[]) =>
      blockRows(layers, blocks, new Set(folded)).map((row) =>
        row.kind === 'block' ? `${row.block}:${row.layers.length}` : row.layer.name,
      );
    expect(rows([])).toEqual(['stem', 'b_1:2', 'b_1_a', 'b_1_b', 'b_2:2', 'b_2_a', 'b_2_b']);
    expect(rows(['b_1'])).toEqual(['stem', 'b_1:2', 'b_2:2', 'b_2_a', 'b_2_b']);
  });
});
