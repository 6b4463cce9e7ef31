import { expect, it } from 'vitest';
import { compareLayers, metricNames, otherSettings } from '../src/models/comparison';
import { LOSSES, layer, overview } from './samples';

it('puts the largest difference of distances first and layers of a single run last', () => {
  const a = [layer({ name: 'x', distance: 0.1 }), layer({ name: 'y', distance: 0.9 }), layer({ name: 'a' })];
  const b = [layer({ name: 'y', distance: 0.2 }), layer({ name: 'x', distance: 0.15 }), layer({ name: 'b' })];
  const compared = compareLayers([a, b]);
  expect(compared.map(({ name }) => name)).toEqual(['y', 'x', 'a', 'b']);
  expect(compared[0].difference).toBeCloseTo(0.7);
  expect(compared[2]).toMatchObject({ difference: null, layers: [{ name: 'a' }, null] });
});

it('matches layers that Keras has numbered differently in the order of the model', () => {
  const named = (...names: string[]) => names.map((name) => layer({ name }));
  const pairs = (a: string[], b: string[]) =>
    compareLayers([named(...a), named(...b)]).map(({ layers }) => layers.map((one) => one?.name ?? null));
  expect(
    pairs(
      ['batch_normalization', 'batch_normalization_1'],
      ['batch_normalization_1', 'batch_normalization_2'],
    ),
  ).toEqual([
    ['batch_normalization', 'batch_normalization_1'],
    ['batch_normalization_1', 'batch_normalization_2'],
  ]);
  // A surplus layer stands alone, though the first run has its name.
  expect(pairs(['batch_normalization_1'], ['batch_normalization', 'batch_normalization_1'])).toEqual([
    ['batch_normalization_1', 'batch_normalization'],
    [null, 'batch_normalization_1'],
  ]);
  expect(pairs(['bn_1', 'bn_2'], ['bn_2'])).toEqual([
    ['bn_2', 'bn_2'],
    ['bn_1', null],
  ]);
});

it('names what else a layer does differently', () => {
  const [same, other] = compareLayers([
    [layer({ name: 'same', distance: 0 }), layer({ name: 'other', momentum: 0.9, distance: 0 })],
    [layer({ name: 'same', distance: 1 }), layer({ name: 'other', state: 'frozen', distance: 0 })],
  ]);
  expect(otherSettings(same)).toEqual({ momentum: false, state: false });
  expect(otherSettings(other)).toEqual({ momentum: true, state: true });
});

it('has the metrics of all runs once', () => {
  const other = overview({ losses: { ...LOSSES, metrics: { mae: {}, accuracy: {} } } });
  expect(metricNames([overview({}), null, other])).toEqual(['accuracy', 'mae']);
});
