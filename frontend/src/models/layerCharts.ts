import type { Line } from '../charts/lineSpec';
import { column, type Frame } from '../frame';
import type { XAxis } from '../link';
import { nullable } from './align';
import type { Clock } from './axis';
import { type ScaleKind, scaleFor } from './scale';

export interface LayerChart {
  x: Float64Array;
  lines: Line[];
  scale: ScaleKind;
}

type Values = (number | null)[];

/** Batch against moving mean, with the scatter of single batches around the batch mean as a band. */
export function meanChart(frame: Frame, clock: Clock, axis: XAxis): LayerChart {
  const batch = nullable(column(frame, 'batch_mean_rms'));
  const spread = nullable(column(frame, 'batch_variance_gm'));
  const noise = nullable(column(frame, 'noise_mean'));
  // noise_mean is in channel standard deviations; the chart is in activation units.
  const width = batch.map((_, i) => product(noise[i], root(spread[i])));
  return chart(
    clock,
    axis,
    'mean',
    batch,
    nullable(column(frame, 'moving_mean_rms')),
    sum(batch, width),
    sum(batch, width, -1),
  );
}

/** The same for the variance; its noise is relative to the variance. */
export function varianceChart(frame: Frame, clock: Clock, axis: XAxis): LayerChart {
  const batch = nullable(column(frame, 'batch_variance_gm'));
  const noise = nullable(column(frame, 'noise_variance'));
  const high = batch.map((v, i) => product(v, plus(1, noise[i])));
  const low = batch.map((v, i) =>
    noise[i] === null || (noise[i] as number) >= 1 ? null : product(v, plus(1, -(noise[i] as number))),
  );
  return chart(clock, axis, 'variance', batch, nullable(column(frame, 'moving_variance_gm')), high, low);
}

/** Distance at the records, and the least and greatest since the one before. */
export function distanceChart(frame: Frame, clock: Clock, axis: XAxis): LayerChart {
  const now = nullable(column(frame, 'distance_rms'));
  const lines: Line[] = [
    {
      id: 'max',
      label: 'range since the previous record',
      color: 'batch',
      width: 0.5,
      bandToNext: true,
      values: nullable(column(frame, 'since_max')),
    },
    {
      id: 'min',
      legend: false,
      label: 'least since the previous record',
      color: 'batch',
      width: 0.5,
      values: nullable(column(frame, 'since_min')),
    },
    {
      id: 'p95',
      label: '95th percentile',
      color: 'recalibrated',
      width: 1.25,
      dash: [5, 3],
      values: nullable(column(frame, 'distance_p95')),
    },
    { id: 'rms', label: 'rms over channels', color: 'inference', width: 2, values: now },
  ].filter((line) => line.values.some((v) => v !== null));
  return { x: clock.all(axis), lines, scale: scaleFor(now) };
}

function chart(
  clock: Clock,
  axis: XAxis,
  name: string,
  batch: Values,
  moving: Values,
  high: Values,
  low: Values,
): LayerChart {
  const band: Line[] = high.some((v) => v !== null)
    ? [
        {
          id: 'high',
          label: 'single batches ± 1 sd',
          color: 'batch',
          width: 0.5,
          alpha: 0.5,
          bandToNext: true,
          values: high,
        },
        {
          id: 'low',
          legend: false,
          label: 'single batches − 1 sd',
          color: 'batch',
          width: 0.5,
          alpha: 0.5,
          values: low,
        },
      ]
    : [];
  return {
    x: clock.all(axis),
    lines: [
      ...band,
      { id: 'batch', label: `batch ${name}`, color: 'batch', width: 1.75, values: batch },
      { id: 'moving', label: `moving ${name}`, color: 'inference', width: 2, dash: [7, 3], values: moving },
    ],
    scale: scaleFor([...batch, ...moving]),
  };
}

function product(a: number | null, b: number | null): number | null {
  return a === null || b === null ? null : a * b;
}

function plus(a: number, b: number | null): number | null {
  return b === null ? null : a + b;
}

function root(a: number | null): number | null {
  return a === null || a < 0 ? null : Math.sqrt(a);
}

function sum(a: Values, b: Values, sign = 1): Values {
  return a.map((v, i) => (v === null || b[i] === null ? null : v + sign * (b[i] as number)));
}
