import { describe, expect, it } from 'vitest';
import {
  fromSlider,
  layerAt,
  measuredAt,
  noiseFloor,
  permanentLag,
  settled,
  stepsToConverge,
  toSlider,
  withOwn,
  worstAt,
} from '../src/models/momentum';
import { layer } from './samples';

describe('what-if momentum', () => {
  it('gives the numbers of docs/design.md: variance 1.0 to a true 0.1 within 10%', () => {
    expect(stepsToConverge(9, 0.1, 0.99)).toBe(448);
    expect(stepsToConverge(9, 0.1, 0.999)).toBe(4498);
  });
  it('is converged within tolerance, and never at momentum 1', () => {
    expect(stepsToConverge(0.05, 0.1, 0.999)).toBe(0);
    expect(stepsToConverge(9, 0.1, 1)).toBe(Number.POSITIVE_INFINITY);
    expect(stepsToConverge(null, 0.1, 0.9)).toBeNull();
  });
  it('gives the numbers of analysis/convergence.py where the error is renewed', () => {
    expect(stepsToConverge(9, 0.1, 0.99, { error: 0.05, age: 100 })).toBe(451);
    expect(stepsToConverge(9, 0.1, 0.99, { error: 0.05, age: 1000 })).toBe(489);
    const moving = layer({ error_p95: 9, momentum: 0.99, error_renewed: 0.05, updates: 1000 });
    // At the layer's own momentum it is the number of the report.
    expect(layerAt(moving, 0.1, 0.99).steps).toBe(moving.steps_to_converge);
    // A shorter memory stays less behind: 0.05 at 0.99 is 0.0045 at 0.9.
    expect(layerAt(moving, 0.1, 0.9).steps).toBe(44);
  });
  it('computes the lag of a drift and the floor of the noise', () => {
    expect(permanentLag(1e-3, 0.999)).toBeCloseTo(0.999, 9);
    expect(noiseFloor(1, 0.9)).toBeCloseTo(Math.sqrt(0.1 / 1.9), 12);
    expect(permanentLag(null, 0.9)).toBeNull();
  });
  it('names the worst layer of each number', () => {
    const layers = [
      layer({ name: 'a', error_p95: 9, drift: 0, noise_mean: 0.5 }),
      layer({ name: 'b', error_p95: 1, drift: 1e-3, noise_mean: null }),
    ];
    expect(worstAt(layers, 0.1, 0.99)).toMatchObject({
      steps: 448,
      stepsLayer: 'a',
      lagLayer: 'b',
      noiseLayer: 'a',
    });
  });
  it('has a slider that is even in 1 - momentum', () => {
    expect(fromSlider(2)).toBeCloseTo(0.99, 12);
    expect(toSlider(0.999)).toBeCloseTo(3, 9);
  });
});

describe('the slider among replays', () => {
  const replays = [
    { momentum: 0.9, loss: 1 },
    { momentum: 0.97, loss: 2 },
    { momentum: 0.99, loss: 9 },
  ];
  it('settles on a replay, and passes it with one key', () => {
    expect(settled(1.5, replays)).toBe(0.97);
    expect(settled(1.55, replays)).toBe(0.972);
    expect(settled(1.45, replays)).toBe(0.965);
  });
  it('has the loss of a replay, of its neighbours, or none', () => {
    expect(measuredAt(replays, 0.97)).toEqual([replays[1]]);
    expect(measuredAt(replays, 0.98)).toEqual(replays.slice(1));
    expect(measuredAt(replays, 0.8)).toEqual([]);
    expect(measuredAt(replays, 0.995)).toEqual([]);
  });
});

describe('replayed losses with the measured one', () => {
  const replayed = [
    { momentum: 0.5, loss: 2.7 },
    { momentum: 0.99, loss: 9 },
  ];
  it('puts the own momentum between the replayed ones', () => {
    expect(withOwn({ replayed, inference: 2.2 }, 0.9)).toEqual([
      { momentum: 0.5, loss: 2.7 },
      { momentum: 0.9, loss: 2.2 },
      { momentum: 0.99, loss: 9 },
    ]);
  });
  it('takes the place of a replay at the same momentum', () => {
    expect(withOwn({ replayed, inference: 2.2 }, 0.99).map(({ loss }) => loss)).toEqual([2.7, 2.2]);
  });
  it('leaves the replays alone where layers differ or no loss was measured', () => {
    expect(withOwn({ replayed, inference: 2.2 }, null)).toEqual(replayed);
    expect(withOwn({ replayed, inference: null }, 0.9)).toEqual(replayed);
  });
});
