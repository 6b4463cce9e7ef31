import { describe, expect, it } from 'vitest';
import { decodeFrame } from '../src/frame';
import { KINDS, lossChart } from '../src/models/lossChart';
import { encodeFrame, LOSSES } from './samples';

const frame = decodeFrame(
  encodeFrame({
    steps: { data: [0, 200, 400], dtype: 'f8' },
    wall_times: { data: [1000, 1100, 1200], dtype: 'f8' },
    'train/inference': { data: [9000, 12000, 15126] },
    'train/batch': { data: [9000, 90, 1.2] },
  }),
);
const run = { run: 'a', color: null, frame, losses: LOSSES };

describe('paired-loss chart', () => {
  it('draws the kinds that were measured, and the forecast past the last step', () => {
    const chart = lossChart([run], KINDS, 'train', 'step', 0);
    expect(chart.lines.map((line) => line.label)).toEqual(['batch statistics', 'inference', 'forecast']);
    expect([...chart.x]).toEqual([0, 200, 400, 500]);
    expect(chart.lines[2].values).toEqual([null, null, 15126, 900]);
    expect(chart.scale).toBe('log');
    expect(chart.extent).toEqual([0, 500]);
  });
  it('shows no more than a quarter ahead of the record until requested', () => {
    const far = { ...run, losses: { ...LOSSES, forecast: [{ updates: 4500, loss: 1.3 }] } };
    const chart = lossChart([far], KINDS, 'train', 'step', 0);
    expect(chart.extent).toEqual([0, 500]);
    expect(chart.forecastEnd).toBe(4900);
  });
  it('puts the forecast on the time axis at the pace of the run', () => {
    const chart = lossChart([run], KINDS, 'train', 'relative', 0);
    expect([...chart.x]).toEqual([0, 100, 200, 250]);
  });
  it('draws how fast and how slowly the forecast may come true', () => {
    const chart = lossChart([{ ...run, pace: [0.5, 2] }], ['inference'], 'train', 'step', 0);
    const [high, low] = ['a/forecast-band', 'a/forecast-band:low'].map((id) =>
      chart.lines.find((line) => line.id === id),
    );
    expect([high?.bandToNext, low?.legend]).toEqual([true, false]);
    const values = [...chart.x].map((x, i) => [x, low?.values[i], high?.values[i]]);
    expect(values.find(([x]) => x === 400)).toEqual([400, 15126, 15126]);
    // Twice as fast it is there after 50 updates of 100, at half the pace after 200.
    const [, lowest, highest] = values.find(([x]) => x === 450) as number[];
    expect(lowest).toBe(900);
    expect(highest).toBeCloseTo(15126 * (900 / 15126) ** 0.25);
    expect(values[values.length - 1]).toEqual([600, 900, 900]);
  });
  it('keeps the raw line, faint and unnamed, under a smoothed one', () => {
    const chart = lossChart([run], ['batch'], 'train', 'step', 0.5);
    expect(chart.lines.map(({ id, legend }) => [id, legend])).toEqual([
      ['a/batch:raw', false],
      ['a/batch', undefined],
    ]);
  });
  it('has nothing to draw of an empty frame', () => {
    const chart = lossChart([{ ...run, frame: new Map(), losses: null }], KINDS, 'train', 'step', 0);
    expect([chart.lines, chart.extent]).toEqual([[], [0, 1]]);
  });
});
