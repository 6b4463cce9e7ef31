/** What every number on the page is: name, unit, and how it is computed. Shown as tooltips and in tables. */
export interface Word {
  label: string;
  unit: string;
  /** What it is and how it is computed, in one or two sentences. */
  text: string;
}

export const WORDS = {
  training: {
    label: 'training',
    unit: 'loss',
    text: 'Loss with batch statistics and dropout on, as fit computes it, on the probed batch at the current weights.',
  },
  batch: {
    label: 'batch',
    unit: 'loss',
    text: 'Loss with batch statistics in every BatchNorm layer and everything else in inference mode (dropout off), on the same batch and weights.',
  },
  recalibrated: {
    label: 'recalibrated',
    unit: 'loss',
    text: 'Inference loss with the statistics of the last windows (some 20 batches) in place of the moving ones, on the same batch and weights.',
  },
  recalibrated_now: {
    label: 'recalibrated',
    unit: 'loss',
    text: 'Inference loss with the mean statistics of other kept batches, run at the present weights: what recalibrate() would give. The chart shows it with windows of past weights, which hold drift as well.',
  },
  inference: {
    label: 'inference',
    unit: 'loss',
    text: 'Loss with the moving statistics, as predict and evaluate compute it, on the same batch and weights.',
  },
  dropout: {
    label: 'dropout',
    unit: 'loss',
    text: 'training − batch: what dropout and other training-only layers change, and layers that training itself runs on their moving statistics (frozen or in inference mode).',
  },
  noise: {
    label: 'batch noise',
    unit: 'loss',
    text: 'recalibrated − batch: what is left when the statistics are fresh. No waiting cures it; a larger batch may.',
  },
  stale: {
    label: 'stale statistics',
    unit: 'loss',
    text: 'inference − recalibrated: what the moving statistics cost because they lag behind the batches.',
  },
  'after the update': {
    label: 'after the update',
    unit: 'loss',
    text: 'Inference loss on the same batch after the training step that followed: what the weight update changes.',
  },
  'shown by fit': {
    label: 'shown by fit',
    unit: 'loss',
    text: 'What fit prints at this step: a mean over the epoch so far, of losses measured before each update.',
  },
  forecast: {
    label: 'forecast',
    unit: 'loss',
    text: 'Inference loss with the moving statistics advanced n more updates toward the last windows, at the current weights.',
  },
  replayed: {
    label: 'inference, replayed',
    unit: 'loss',
    text: 'Measured, not modelled: training never reads the moving statistics, so averages kept at other momenta give the inference loss this run would have now.',
  },
  distance: {
    label: 'distance',
    unit: 'sd',
    text: 'How far the layer’s normalized output at inference is from training mode: W = √((a−1)² + b²), a = √((v+ε)/(s+ε)), b = (μ−m)/√(s+ε), rms over channels. 0 is agreement.',
  },
  steps: {
    label: 'steps to converge',
    unit: 'updates',
    text: 'Updates until 95% of the channels are within tolerance at the layer’s momentum: ln(error / tolerance) / −ln(momentum), and longer where the movement of the batch statistics has kept renewing the error of late.',
  },
  steps_worst: {
    label: 'worst channel',
    unit: 'updates',
    text: 'Steps to converge of the layer’s worst channel.',
  },
  mean_error: {
    label: 'mean error',
    unit: 'sd',
    text: '|m − μ| / √(v+ε), 95th percentile over channels: moving mean against the batches’ mean, in batch standard deviations.',
  },
  variance_error: {
    label: 'variance error',
    unit: 'relative',
    text: '|s − v| / max(v, ε), 95th percentile over channels: moving variance against the batches’ variance.',
  },
  variance_ratio: {
    label: 'variance ratio',
    unit: '×',
    text: '(s+ε) / (v+ε), geometric mean over channels: moving variance over the batches’ variance. 1 is agreement; above 1 inference scales the activations too small, below 1 too large.',
  },
  momentum: {
    label: 'momentum',
    unit: '',
    text: 'Share of the moving statistic that an update keeps: m ← momentum · m + (1 − momentum) · batch.',
  },
  momentum_effective: {
    label: 'effective momentum',
    unit: '',
    text: 'Momentum estimated from how the moving statistics really change. It differs from the attribute when that was set after the step was traced.',
  },
  lag: {
    label: 'permanent lag',
    unit: 'sd',
    text: 'drift · momentum / (1 − momentum): the lag that remains for good while the batch statistics drift.',
  },
  noise_floor: {
    label: 'noise floor',
    unit: 'sd',
    text: 'Standard deviation that batch noise leaves in the moving mean: σ · √((1 − momentum) / (1 + momentum)).',
  },
  noise_mean: {
    label: 'batch noise',
    unit: 'sd',
    text: 'Standard deviation of a single batch’s mean, in channel standard deviations.',
  },
  drift: {
    label: 'drift',
    unit: 'sd / step',
    text: 'Change of the batch statistics a step, in channel standard deviations. 0 where it cannot be told from noise.',
  },
  attribution: {
    label: 'loss, this layer alone',
    unit: 'loss',
    text: 'Loss in batch mode with this layer alone on its moving statistics: who breaks the network.',
  },
  state: {
    label: 'state',
    unit: '',
    text: 'What the layer does, seen from its moving statistics: updating, frozen (trainable=False), inference_mode (called with training=False), or never_updated.',
  },
  updates: { label: 'updates', unit: '', text: 'Updates of the moving statistics since the record began.' },
  channels: {
    label: 'channels',
    unit: '',
    text: 'Features that the layer normalizes, each with its own mean and variance.',
  },
  epsilon: { label: 'ε', unit: '', text: 'Small constant that the layer adds to the variance.' },
  overhead: {
    label: 'overhead',
    unit: 'of training time',
    text: 'Share of wall time since the start of training that recording took, tracing left out.',
  },
  batch_mean: {
    label: 'batch mean',
    unit: 'activation',
    text: 'Mean of the last batches, rms over channels.',
  },
  moving_mean: {
    label: 'moving mean',
    unit: 'activation',
    text: 'moving_mean of the layer, rms over channels.',
  },
  batch_variance: {
    label: 'batch variance',
    unit: 'activation²',
    text: 'Variance of the last batches plus ε, geometric mean over channels.',
  },
  moving_variance: {
    label: 'moving variance',
    unit: 'activation²',
    text: 'moving_variance of the layer plus ε, geometric mean over channels.',
  },
} as const satisfies Record<string, Word>;

/** Frozen layers normalize alike in training and inference, so they part training from batch mode as dropout does. */
export function trainingOnly(frozen: boolean): string {
  return frozen ? 'dropout, frozen layers' : WORDS.dropout.label;
}

export type WordKey = keyof typeof WORDS;

export function tooltip(key: WordKey): string {
  const { label, unit, text } = WORDS[key];
  return unit ? `${label} (${unit}). ${text}` : `${label}. ${text}`;
}
