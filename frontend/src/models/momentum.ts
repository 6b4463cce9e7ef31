import type { LayerReport, PairedLosses } from '../wire';

/**
 * What another momentum would mean for a layer. The same formulas as tb_bnlens/analysis, kept here because a slider
 * cannot wait for a route.
 */

/** What a movement of the batch statistics keeps up of an error, and the updates over which it was seen. */
export interface Renewal {
  error: number;
  age: number;
}

const LARGEST_COUNT = 2 ** 53;

/**
 * Updates until an error e is within the tolerance: both terms of e shrink by beta an update, but for what is renewed
 * (analysis/convergence.py has the formula and its reason).
 */
export function stepsToConverge(
  error: number | null,
  tolerance: number,
  beta: number,
  renewal: Renewal | null = null,
): number | null {
  if (error === null || !Number.isFinite(error)) return null;
  if (error <= tolerance) return 0;
  if (beta >= 1) return Number.POSITIVE_INFINITY;
  if (beta <= 0) return 1;
  if (renewal === null || !(renewal.error > 0))
    return Math.ceil(Math.log(error / tolerance) / -Math.log(beta));
  const logBeta = Math.log(beta);
  const logFade = -1 / renewal.age;
  const slow = Math.max(logBeta, logFade);
  const ratio = -Math.abs(logBeta - logFade);
  const above = (n: number) => {
    const together = (ratio ? Math.expm1(n * ratio) / Math.expm1(ratio) : n) * Math.exp((n - 1) * slow);
    return error * beta ** n + (1 - beta) * renewal.error * together > tolerance;
  };
  let low = 0;
  let high = LARGEST_COUNT;
  if (above(high)) return Number.POSITIVE_INFINITY;
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (above(middle)) low = middle;
    else high = middle;
  }
  return high;
}

/** What a layer's movement would keep up at another momentum: a standing error is as a lag, beta / (1 - beta). */
function renewalAt(layer: LayerReport, beta: number): Renewal | null {
  const { error_renewed: error, momentum, updates: age } = layer;
  if (!error || !age || !(momentum > 0 && momentum < 1)) return null;
  return { error: (error * (beta / (1 - beta)) * (1 - momentum)) / momentum, age };
}

/** Lag that drift leaves permanently: drift * beta / (1 - beta), in the drift's unit. */
export function permanentLag(drift: number | null, beta: number): number | null {
  if (drift === null || !Number.isFinite(drift)) return null;
  return beta >= 1 ? Number.POSITIVE_INFINITY : (Math.abs(drift) * beta) / (1 - beta);
}

/** Standard deviation that batch noise leaves in the moving mean, in the noise's unit. */
export function noiseFloor(noise: number | null, beta: number): number | null {
  if (noise === null || !Number.isFinite(noise)) return null;
  return noise * Math.sqrt((1 - beta) / (1 + beta));
}

// A momentum matters by its distance from 1, so the slider is logarithmic in 1 - beta.
export const SLIDER_MIN = 0.1;
export const SLIDER_MAX = 4;
export const SLIDER_STEP = 0.05;

export function fromSlider(position: number): number {
  return 1 - 10 ** -position;
}

export function toSlider(beta: number): number {
  return Math.min(SLIDER_MAX, Math.max(SLIDER_MIN, -Math.log10(Math.max(1 - beta, 1e-9))));
}

export interface WhatIfNumbers {
  steps: number | null;
  lag: number | null;
  noise: number | null;
  /** Layer that each number is of, where it is the worst of several. */
  stepsLayer?: string;
  lagLayer?: string;
  noiseLayer?: string;
}

/** Steps to converge at a momentum; at the layer's own it is the number that the report gives. */
function stepsAt(layer: LayerReport, tolerance: number, beta: number): number | null {
  const { steps_to_converge: own, momentum_effective, momentum } = layer;
  if (beta === (momentum_effective ?? momentum)) return own === 'never' ? Number.POSITIVE_INFINITY : own;
  return stepsToConverge(layer.error_p95, tolerance, beta, renewalAt(layer, beta));
}

export function layerAt(layer: LayerReport, tolerance: number, beta: number): WhatIfNumbers {
  return {
    steps: stepsAt(layer, tolerance, beta),
    lag: permanentLag(layer.drift, beta),
    noise: noiseFloor(layer.noise_mean, beta),
  };
}

/** Whether a layer's statistics move at all; a frozen one has no use for a momentum. */
export function updates(layer: LayerReport): boolean {
  return layer.state !== 'frozen' && layer.state !== 'inference_mode';
}

/** The worst updating layer for each number. */
export function worstAt(layers: readonly LayerReport[], tolerance: number, beta: number): WhatIfNumbers {
  const worst: WhatIfNumbers = { steps: null, lag: null, noise: null };
  for (const layer of layers.filter(updates)) {
    const { steps, lag, noise } = layerAt(layer, tolerance, beta);
    if (steps !== null && (worst.steps === null || steps > worst.steps)) {
      worst.steps = steps;
      worst.stepsLayer = layer.name;
    }
    if (lag !== null && (worst.lag === null || lag > worst.lag)) {
      worst.lag = lag;
      worst.lagLayer = layer.name;
    }
    if (noise !== null && (worst.noise === null || noise > worst.noise)) {
      worst.noise = noise;
      worst.noiseLayer = layer.name;
    }
  }
  return worst;
}

export type Replays = readonly { momentum: number; loss: number | null }[];

/** What was measured of the loss at a momentum: itself, or the replays on either side of it; none where it is outside. */
export function measuredAt(replays: Replays, momentum: number): Replays {
  const same = replays.filter((each) => Math.abs(toSlider(each.momentum) - toSlider(momentum)) < 1e-3);
  if (same.length) return same;
  const after = replays.findIndex((each) => each.momentum > momentum);
  return after > 0 ? replays.slice(after - 1, after + 1) : [];
}

/** The momentum of the replay that lies at this position of the slider, else one of two digits: 0.987, not 0.98741. */
export function settled(position: number, replays: Replays): number {
  const near = replays.find((each) => Math.abs(toSlider(each.momentum) - position) < SLIDER_STEP / 2);
  return near?.momentum ?? 1 - Number((1 - fromSlider(position)).toPrecision(2));
}

/** The replayed losses by momentum, with the measured one at the run's own momentum among them. */
export function withOwn(
  { replayed, inference }: Pick<PairedLosses, 'replayed' | 'inference'>,
  own: number | null,
): { momentum: number; loss: number | null }[] {
  const measured = own !== null && inference !== null ? [{ momentum: own, loss: inference }] : [];
  const others = replayed.filter(
    ({ momentum }) => !measured.some((m) => Math.abs(m.momentum - momentum) < 1e-6),
  );
  return [...others, ...measured].sort((a, b) => a.momentum - b.momentum);
}
