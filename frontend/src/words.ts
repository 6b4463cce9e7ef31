/** Name, unit and definition of every number on the page, for tooltips and tables. */
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
    text: 'Loss with batch statistics and dropout on, as fit computes it, at the current weights.',
  },
  batch: {
    label: 'batch statistics',
    unit: 'loss',
    text: 'Loss with batch statistics in every BatchNorm layer and dropout off, on the same batches and weights.',
  },
  recalibrated: {
    label: 'statistics of recent steps',
    unit: 'loss',
    text: 'Inference loss with the statistics of the last training batches (about 20), at the weights of their steps, in place of the moving statistics.',
  },
  recalibrated_now: {
    label: 'recalibrated',
    unit: 'loss',
    text: 'Inference loss with statistics computed on other batches at the current weights: what recalibrate(model, data) would give. Layers that training leaves alone keep theirs.',
  },
  inference: {
    label: 'inference',
    unit: 'loss',
    text: 'Loss with the moving statistics (running statistics in PyTorch and flax), as predict and evaluate compute it, on the same batches and weights.',
  },
  dropout: {
    label: 'dropout',
    unit: 'loss',
    text: 'training − batch statistics: the effect of dropout, of other training-only layers, and of frozen layers.',
  },
  noise: {
    label: 'batch noise',
    unit: 'loss',
    text: 'recalibrated − batch statistics: the cost of fixed statistics even when they are up to date. More training does not reduce it; a larger batch may.',
  },
  stale: {
    label: 'stale statistics',
    unit: 'loss',
    text: 'inference − recalibrated: the cost of moving statistics that lag behind the batch statistics.',
  },
  'after the update': {
    label: 'after the update',
    unit: 'loss',
    text: 'Inference loss on the same batch after the next training step: the effect of the weight update.',
  },
  'shown by fit': {
    label: 'shown by fit',
    unit: 'loss',
    text: 'The loss that fit prints at this step: a mean over the epoch so far, of losses measured before each update.',
  },
  harm: {
    label: 'harm',
    unit: '',
    text: 'What inference loses against batch statistics, in units of the loss of a typical row above that of the easiest rows, or of what training has gained if that is less: 1 doubles a loss that comes down to zero. A drop of a metric counts too. A warning from 0.5, an error from 1, where it is beyond chance.',
  },
  forecast: {
    label: 'forecast',
    unit: 'loss',
    text: 'Inference loss with the moving statistics advanced n updates toward the last batch statistics, at the current weights.',
  },
  replayed: {
    label: 'inference, replayed',
    unit: 'loss',
    text: 'Measured inference loss with moving averages that were kept with other momentum values during training. Training does not read the moving statistics, so the weights would be the same.',
  },
  distance: {
    label: 'distance',
    unit: 'sd',
    text: 'Difference between the layer’s normalized output at inference and in training, rms over channels: W = √((a−1)² + b²), a = √((v+ε)/(s+ε)), b = (μ−m)/√(s+ε). 0 means no difference.',
  },
  steps_needed: {
    label: 'further steps to converge (run)',
    unit: 'steps',
    text: 'Training steps after the last one until the run has converged: until the forecast of the inference loss is within tolerance of its end, else until every layer has converged.',
  },
  steps: {
    label: 'further updates to converge (layer)',
    unit: 'updates',
    text: 'Updates of this layer, after the last step, until 95% of the channels are within tolerance: ln(error / tolerance) / −ln(β), where an update keeps the share β of the old value, and more where the batch statistics keep moving.',
  },
  steps_worst: {
    label: 'worst channel',
    unit: 'updates',
    text: 'Further updates to converge of the layer’s slowest channel.',
  },
  mean_error: {
    label: 'mean error',
    unit: 'sd',
    text: '|m − μ| / √(v+ε), 95th percentile over channels: moving mean minus batch mean, in batch standard deviations.',
  },
  variance_error: {
    label: 'variance error',
    unit: 'relative',
    text: '|s − v| / max(v, ε), 95th percentile over channels: relative error of the moving variance.',
  },
  variance_ratio: {
    label: 'variance ratio',
    unit: '×',
    text: '(s+ε) / (v+ε), geometric mean over channels: moving variance over batch variance. Above 1, inference makes the activations too small; below 1, too large.',
  },
  momentum: {
    label: 'momentum',
    unit: '',
    text: 'As the framework sets it. In Keras, the share of the old value that an update keeps: m ← momentum · m + (1 − momentum) · batch. In PyTorch, the share that the batch replaces, 1 minus that.',
  },
  momentum_effective: {
    label: 'effective momentum',
    unit: '',
    text: 'Momentum estimated from the recorded updates. It differs from that of the layer if the latter was changed after the training step was traced.',
  },
  lag: {
    label: 'permanent lag',
    unit: 'sd',
    text: 'drift · β / (1 − β), where an update keeps the share β of the old value: the error that remains while the batch statistics drift.',
  },
  noise_floor: {
    label: 'noise floor',
    unit: 'sd',
    text: 'Standard deviation of the moving mean due to batch noise: σ · √((1 − β) / (1 + β)), where an update keeps the share β of the old value.',
  },
  noise_mean: {
    label: 'batch noise',
    unit: 'sd',
    text: 'Standard deviation of one batch’s mean, in channel standard deviations.',
  },
  drift: {
    label: 'drift',
    unit: 'sd / step',
    text: 'Change of the batch statistics per step, in channel standard deviations. 0 where it is not significant.',
  },
  attribution: {
    label: 'loss, this layer alone',
    unit: 'loss',
    text: 'Loss with moving statistics in this layer and batch statistics in all others. It shows which layers break inference.',
  },
  state: {
    label: 'state',
    unit: '',
    text: 'Observed behaviour of the moving statistics: updating, frozen (trainable=False), inference mode (called with training=False) or never updated.',
  },
  updates: { label: 'updates', unit: '', text: 'Updates of the moving statistics since recording began.' },
  channels: {
    label: 'channels',
    unit: '',
    text: 'Features that the layer normalizes, each with its own mean and variance.',
  },
  epsilon: { label: 'ε', unit: '', text: 'Small constant that the layer adds to the variance.' },
  overhead: {
    label: 'overhead',
    unit: 'of training time',
    text: 'Share of training time spent on recording, without tracing.',
  },
  batch_mean: {
    label: 'batch mean',
    unit: 'activation',
    text: 'Mean of the last batches, rms over channels.',
  },
  moving_mean: {
    label: 'moving mean',
    unit: 'activation',
    text: 'moving_mean of the layer (running_mean in PyTorch, mean in flax), rms over channels.',
  },
  batch_variance: {
    label: 'batch variance',
    unit: 'activation²',
    text: 'Variance of the last batches plus ε, geometric mean over channels.',
  },
  moving_variance: {
    label: 'moving variance',
    unit: 'activation²',
    text: 'moving_variance of the layer (running_var in PyTorch, var in flax) plus ε, geometric mean over channels.',
  },
} as const satisfies Record<string, Word>;

/**
 * The name of a part of the gap. A frozen layer uses its moving statistics in training and after a recalibration too, so
 * it adds to what dropout and batch noise take from batch statistics.
 */
export function partLabel(part: 'dropout' | 'noise' | 'stale', frozen: boolean, allFrozen = false): string {
  if (!frozen || part === 'stale') return WORDS[part].label;
  if (part === 'noise' && allFrozen) return 'frozen layers';
  return part === 'dropout' ? 'dropout, frozen layers' : 'batch noise, frozen layers';
}

export type WordKey = keyof typeof WORDS;

/** The words for a line of a chart: its label, or the kind of loss that it shows. */
export function wordOf(label: string): WordKey | null {
  if (label in WORDS) return label as WordKey;
  return (Object.keys(WORDS) as WordKey[]).find((key) => WORDS[key].label === label) ?? null;
}

export function tooltip(key: WordKey): string {
  const { label, unit, text } = WORDS[key];
  return unit ? `${label} (${unit}). ${text}` : `${label}. ${text}`;
}
