import { describe, expect, it } from 'vitest';
import { fileName } from '../src/download';
import { align } from '../src/models/align';
import { Clock, nearest, neighbour, upperBound } from '../src/models/axis';
import { channelPoints, channelScale, distance, worstChannels } from '../src/models/channels';
import { csv } from '../src/models/csv';
import { decompose, isSmall } from '../src/models/decomposition';
import { visibleExtent } from '../src/models/extent';
import { columns, heatScale, layerRows, peak, rowHeight, shade, worstRow } from '../src/models/heat';
import { scaleFor } from '../src/models/scale';
import { smooth } from '../src/models/smoothing';
import { sparkPath } from '../src/models/sparkline';
import { asinhSplits, logSplits, logTicks, thinLog, ticks } from '../src/models/ticks';
import { LOSSES } from './samples';

describe('clock', () => {
  const clock = new Clock([0, 10, 20, 40], [100, 110, 120, 140]);

  it('places records on each axis', () => {
    expect([...clock.all('step')]).toEqual([0, 10, 20, 40]);
    expect([...clock.all('relative')]).toEqual([0, 10, 20, 40]);
    expect([...clock.all('wall')]).toEqual([100, 110, 120, 140]);
  });

  it('interpolates between records and extrapolates at the mean pace past them', () => {
    expect(clock.position(15, 'wall')).toBe(115);
    expect(clock.position(60, 'relative')).toBe(60);
    expect(clock.step(160, 'wall')).toBe(60);
  });

  it('survives an empty and a single record', () => {
    expect(new Clock([], []).position(3, 'wall')).toBeNaN();
    expect(new Clock([5], [100]).position(9, 'wall')).toBe(100);
  });

  it('finds neighbours', () => {
    expect(upperBound([1, 2, 2, 3], 2)).toBe(3);
    expect(nearest([0, 10, 20], 14)).toBe(1);
    expect(nearest([], 1)).toBe(-1);
    expect([
      neighbour([0, 10, 20], 14, 1),
      neighbour([0, 10, 20], null, -1),
      neighbour([0, 10], 0, -5),
    ]).toEqual([20, 10, 0]);
    expect(neighbour([], 3, 1)).toBeNull();
  });
});

describe('scale', () => {
  it('is log where positive values span more than a decade and a bit', () => {
    expect(scaleFor([1, 15000])).toBe('log');
    expect(scaleFor([1, 2, null, Number.NaN])).toBe('linear');
  });
  it('is asinh where a loss is negative, linear where all are zero', () => {
    expect(scaleFor([-5, 1000])).toBe('asinh');
    expect(scaleFor([0, 0])).toBe('linear');
  });
});

describe('smoothing', () => {
  it('has no start bias and leaves constants alone', () => {
    for (const log of [false, true]) {
      for (const value of smooth([4, 4, 4], 0.9, log)) expect(value).toBeCloseTo(4, 12);
    }
  });
  it('keeps gaps, and copies at weight 0', () => {
    expect(smooth([1, null, 3], 0.5, false)[1]).toBeNull();
    expect(smooth([1, null, 3], 0, false)).toEqual([1, null, 3]);
  });
  it('smooths the logarithm on a log axis', () => {
    expect(smooth([1, 100], 0.5, true)[1]).toBeCloseTo(10 ** (4 / 3), 9);
  });
});

describe('align', () => {
  it('puts runs with steps of their own on one x', () => {
    const { x, values } = align([
      { x: [0, 2], values: [1, 2] },
      { x: [1, 2], values: [3, 4] },
    ]);
    expect([...x]).toEqual([0, 1, 2]);
    expect(values).toEqual([
      [1, null, 2],
      [null, 3, 4],
    ]);
  });
  it('shares an x that is the same', () => {
    const x = Float64Array.of(0, 1);
    expect(align([{ x, values: [1, null] }]).values).toEqual([[1, null]]);
    expect(align([]).x.length).toBe(0);
  });
});

describe('extent', () => {
  const x = [0, 10, 20, 30];
  it('holds the points in view', () => {
    expect(visibleExtent(x, [[1, 2, 3, 4]], 10, 20, 'linear')).toEqual([2, 3]);
    expect(visibleExtent(x, [[null, null, null, null]], 0, 30, 'linear')).toBeNull();
  });
  it('holds where a line comes in from outside and leaves', () => {
    expect(visibleExtent(x, [[100, 0, 0, 50]], 5, 25, 'linear')).toEqual([0, 50]);
    expect(visibleExtent(x, [[10000, 1, 1, 1]], 5, 25, 'log')).toEqual([1, expect.closeTo(100, 9)]);
    expect(visibleExtent(x, [[-1000, 0, 0, 0]], 5, 25, 'asinh', 1)?.[0]).toBeCloseTo(
      -Math.sinh(Math.asinh(1000) / 2),
      9,
    );
  });
  it('holds a line that has no point in view, or gaps around it', () => {
    expect(
      visibleExtent(
        x,
        [
          [null, 8, null, 8],
          [1, 2, 2, 2],
        ],
        12,
        18,
        'linear',
      ),
    ).toEqual([2, 8]);
    expect(visibleExtent(x, [[4, null, null, 4]], 12, 18, 'linear')).toEqual([4, 4]);
  });
  it('leaves out what a log axis cannot show', () => {
    expect(visibleExtent(x, [[0, -1, 5, 6]], 0, 30, 'log')).toEqual([5, 6]);
  });
});

describe('decomposition', () => {
  it('shares out the sizes of the parts', () => {
    const parts = decompose({ ...LOSSES, dropout: -1, noise: 1, stale: 8 });
    expect(parts.map(({ part, share }) => [part, share])).toEqual([
      ['dropout', 0.1],
      ['noise', 0.1],
      ['stale', 0.8],
    ]);
  });
  it('is small where every part is within a tenth of the losses', () => {
    const near = { ...LOSSES, batch: 1.41, inference: 1.43, dropout: 0, noise: 0.05, stale: -0.03 };
    expect(isSmall(near, decompose(near))).toBe(true);
    const far = { ...near, inference: 2.4, stale: 0.94 };
    expect(isSmall(far, decompose(far))).toBe(false);
    // Large parts that cancel are not small.
    const cancelling = { ...near, noise: 1, stale: -0.98 };
    expect(isSmall(cancelling, decompose(cancelling))).toBe(false);
  });
  it('leaves out what was not measured, and divides by nothing', () => {
    expect(decompose({ ...LOSSES, dropout: null, noise: 0, stale: 0 }).map((s) => s.share)).toEqual([0, 0]);
  });
});

describe('heat', () => {
  const scale = { low: 0.01, high: 1 };
  it('is log between its bounds', () => {
    expect(shade(0.01, scale)).toBe(0);
    expect(shade(-0.1, scale)).toBeCloseTo(0.5, 12);
    expect(shade(50, scale)).toBe(1);
    expect(shade(Number.POSITIVE_INFINITY, scale)).toBe(2);
    expect(shade(Number.NaN, scale)).toBeNaN();
  });
  it('has agreement in the middle of a diverging scale, and keeps the worse of two sides', () => {
    const ratio = heatScale('variance_ratio');
    expect([0.001, 0.1, 1, 10, 1000].map((v) => shade(v, ratio))).toEqual([
      0,
      expect.closeTo(0.25, 9),
      expect.closeTo(0.5, 9),
      expect.closeTo(0.75, 9),
      1,
    ]);
    const heat = { x: Float64Array.of(0, 1, 2), values: [3, 0.1, Number.NaN], layers: 1 };
    expect(peak(heat, 0, 0, 3, true)).toBe(0.1);
    expect(peak(heat, 0, 0, 3)).toBe(3);
  });
  it('shares pixels among thousands of layers, and shows the worst of each pixel', () => {
    expect(3000 * rowHeight(3000)).toBeLessThanOrEqual(600);
    expect([...layerRows(3, 10)]).toEqual([0, 1, 2, 3]);
    expect([...layerRows(5, 2)]).toEqual([0, 2, 5]);
    const heat = { x: Float64Array.of(0), values: [1, 5, Number.NaN, 9], layers: 4 };
    expect(worstRow(heat, [3, 2, 1, 0], [1, 4], [0, 1])).toBe(2);
    expect(worstRow(heat, [2], [0, 1], [0, 1])).toBe(0);
  });
  it('gives every pixel column its records, and a record the columns until the next', () => {
    expect([...columns(Float64Array.of(0, 10), 0, 20, 4, 15)]).toEqual([0, 1, 0, 1, 1, 2, 1, 1]);
    expect([...columns(Float64Array.of(0, 1, 2, 3), 0, 4, 2, 4)]).toEqual([0, 2, 2, 4]);
  });
  it('shows nothing before the first record', () => {
    const [first, end] = columns(Float64Array.of(10, 20), 0, 20, 2, 30);
    expect(first).toBe(end);
  });
  it('keeps a spike that shares its pixel', () => {
    const heat = { x: Float64Array.of(0, 1, 2), values: [1, 0, -9, 0, 2, Number.NaN], layers: 2 };
    expect(peak(heat, 0, 0, 3)).toBe(-9);
    expect(peak(heat, 1, 2, 3)).toBeNaN();
  });
  it('stays within a screen for many layers', () => {
    expect(rowHeight(3)).toBe(22);
    expect(5000 * rowHeight(5000)).toBeLessThanOrEqual(600);
  });
});

describe('channels', () => {
  // [S = 1, 4, C = 2]: batch mean, batch variance, moving mean, moving variance.
  const data = { steps: [7], values: [0, 1, 1, 1, 0, 0, 4, 1], channels: 2 };
  it('is 0 where the statistics agree', () => {
    expect(distance(1, 2, 1, 2, 1e-3)).toBe(0);
    expect(distance(0, 1, 0, 4, 0)).toBe(0.5);
    expect(distance(1, 1, 0, 1, 0)).toBe(1);
  });
  it('sorts by the moving value and names the worst', () => {
    const points = channelPoints(data, 0, 'variance', 0);
    expect(points.map((p) => p.channel)).toEqual([1, 0]);
    expect(worstChannels(points, 1)[0]).toMatchObject({ channel: 1, distance: 1 });
  });
  it('puts a channel that is not finite first', () => {
    const points = channelPoints({ ...data, values: [0, 1, 1, 1, Number.NaN, 0, 4, 1] }, 0, 'mean', 0);
    expect(worstChannels(points, 1)[0].channel).toBe(0);
  });
  it('draws a dead channel at the edge, on two axes of one kind', () => {
    const dead = [
      { channel: 0, batch: 1e-43, moving: 3e-37, distance: 0 },
      { channel: 1, batch: 0.5, moving: 0.4, distance: 0 },
    ];
    const scale = channelScale(dead, 'variance', 1e-3);
    expect(scale).toEqual({ moving: [1e-5, 0.4], batch: [1e-5, 0.5], log: true });
    const means = channelScale([{ channel: 0, batch: -2, moving: 9, distance: 0 }], 'mean', 1e-3);
    expect(means).toEqual({ moving: [9], batch: [-2], log: false });
  });
});

describe('ticks', () => {
  it('are round', () => {
    expect(ticks(0, 400, 9, 'step')).toEqual([0, 50, 100, 150, 200, 250, 300, 350, 400]);
    expect(ticks(0, 3, 10, 'step')).toEqual([0, 1, 2, 3]);
    expect(ticks(0, 150, 5, 'relative')).toEqual([0, 30, 60, 90, 120, 150]);
    expect(ticks(5, 5, 5, 'step')).toEqual([5]);
    expect(logTicks(0.3, 12)).toEqual([0.5, 1, 2, 5, 10]);
  });
  it('thin out on a log axis as it gets longer', () => {
    expect(thinLog([1, 2, 3, 5, 10], 200, 20)).toEqual([1, 2, null, 5, 10]);
    expect(thinLog([1, 2, 10, 100], 200, 20)).toEqual([1, null, 10, 100]);
    expect(thinLog([1, 10, 100, 1000], 40, 20)).toEqual([1, null, 100, null]);
  });
});

describe('splits of a log axis', () => {
  it('end, however small or large the values are', () => {
    expect(logSplits(8, 25)).toEqual([8, 9, 10, 20]);
    expect(logSplits(1e-43, 0.03)).toHaveLength(9 * 41 + 3);
    expect(logSplits(1e-24, 2e-24)).toEqual([1e-24, 2e-24]);
    expect(logSplits(1, 1e38).length).toBeLessThan(400);
    expect(logSplits(0, 1)).toEqual([]);
    expect(logSplits(1, Number.POSITIVE_INFINITY)).toEqual([]);
  });
  it('mirror at zero where values are of both signs', () => {
    expect(asinhSplits(-2, 0.2, 0.1)).toEqual([
      -2, -1, -0.9, -0.8, -0.7, -0.6, -0.5, -0.4, -0.3, -0.2, -0.1, 0, 0.1, 0.2,
    ]);
    expect(asinhSplits(3, 5, 0.1)).toEqual([3, 4, 5]);
    expect(asinhSplits(-5, -3, 0.1)).toEqual([-5, -4, -3]);
  });
});

describe('a file name', () => {
  it('keeps what the file is', () => {
    expect(fileName('a/b c-losses.csv')).toBe('a_b_c-losses.csv');
    const long = fileName(`${'y'.repeat(200)}-losses.csv`);
    expect(long).toHaveLength(120);
    expect(long.endsWith('y-losses.csv')).toBe(true);
  });
});

describe('csv', () => {
  it('quotes what needs it and writes what is missing as nothing', () => {
    expect(
      csv(
        ['a', 'b,c'],
        [
          ['say "hi"', Number.NaN],
          [null, 1.5],
        ],
      ),
    ).toBe('a,"b,c"\r\n"say ""hi""",\r\n,1.5\r\n');
  });
  it('keeps a spreadsheet from running a name', () => {
    expect(csv(['name'], [['=HYPERLINK("x")']])).toContain(`"'=HYPERLINK(""x"")"`);
    expect(csv(['name'], [['bn;=1+1', 'bn\t=1+1']])).toContain('"bn;=1+1","bn\t=1+1"');
  });
});

describe('sparkline', () => {
  it('draws one layer of the matrix', () => {
    expect(sparkPath([0, 9, 1, 9], 2, 0, 10, 12)).toBe('M0.0 11.0L10.0 1.0');
  });
  it('lifts the pen over gaps and draws nothing of one point', () => {
    expect(sparkPath([1, Number.NaN, 1], 1, 0, 3, 12).match(/M/g)).toHaveLength(2);
    expect(sparkPath([1], 1, 0, 3, 12)).toBe('');
  });
});
