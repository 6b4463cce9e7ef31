import type { Finding, LayerReport, Losses, Overview } from '../src/wire';

export const LOSSES: Losses = {
  step: 400,
  batches: 24,
  training: 1.2,
  batch: 1.2,
  inference: 15126,
  recalibrated: 1.3,
  recalibrated_long: null,
  updated: null,
  recalibrated_now: null,
  dropout: 0,
  stale: 15124.7,
  noise: 0.1,
  metrics: { accuracy: { training: 0.984, batch: 0.984, recalibrated: 0.981, inference: 0.8562 } },
  not_evaluated: {},
  overflowed: [],
  forecast: [{ updates: 100, loss: 900 }],
  replayed: [{ momentum: 0.9, loss: 1.4 }],
};

export function layer(change: Partial<LayerReport>): LayerReport {
  return {
    index: 0,
    name: 'bn',
    channels: 4,
    momentum: 0.999,
    momentum_effective: null,
    epsilon: 1e-3,
    axis: -1,
    kind: 'BatchNormalization',
    order: -1,
    state: 'updating',
    updates: 400,
    distance: 0.85,
    distance_p95: 0.9,
    steps_to_converge: 4498,
    steps_to_converge_worst: 5000,
    steps_interval: null,
    steps_reliable: null,
    steps_reason: '',
    error_p95: 9,
    error_max: 10,
    error_renewed: 0,
    mean_error: 0.1,
    variance_ratio: 50,
    noise_mean: 0.06,
    drift: 0,
    permanent_lag: 0,
    worst_channel: 2,
    attribution: 150,
    replayed: [{ momentum: 0.9, distance: 0.02 }],
    findings: ['momentum-too-high'],
    ...change,
  };
}

export function finding(change: Partial<Finding>): Finding {
  return {
    rule: 'momentum-too-high',
    status: 'fail',
    severity: 'error',
    title: 'Momentum too high for this run',
    summary: 'All layers lag.',
    description: 'What the rule looks at.',
    layers: ['bn'],
    layer_indices: [0],
    first_step: 1,
    last_step: 400,
    steps_to_converge: 4498,
    steps_interval: null,
    steps_reliable: null,
    share: null,
    evidence: { gap: { label: 'Gap', value: 11635, limit: 1.5, unit: 'x', against: 'threshold' } },
    ruled_out: [{ cause: 'drift', reason: 'within noise' }],
    rescue: '',
    rescue_loss: null,
    fix: 'layer.momentum = 0.9',
    next: 'inference near 1.4',
    silenced: false,
    explained_by: null,
    ...change,
  };
}

export function overview(change: Partial<Overview> = {}): Overview {
  return {
    format: 1,
    run: 'exp1',
    verdict: 'Inference is 12,600x worse than training mode. All layers lag.',
    headline: 'Inference is 12,600x worse than training mode.',
    reasons: ['All layers lag.'],
    severity: 'error',
    checked: false,
    last_step: 400,
    losses: LOSSES,
    findings: [finding({})],
    layers: [layer({})],
    events: [],
    notes: [],
    planned_steps: 400,
    ended: 'planned',
    ended_step: 400,
    last_record: 1_700_000_000,
    imported: false,
    framework: 'keras',
    batch_size: 100,
    replicas: 1,
    tolerance: 0.1,
    overhead: 0.008,
    records: 400,
    probes: 40,
    ...change,
  };
}

/** A frame as the plugin writes it (see wire.ts). */
export function encodeFrame(
  arrays: Record<string, { data: number[]; shape?: number[]; dtype?: 'f4' | 'f8' }>,
): ArrayBuffer {
  const entries = Object.entries(arrays).map(([name, { data, shape = [data.length], dtype = 'f4' }]) => ({
    name,
    data,
    shape,
    dtype,
  }));
  const header = JSON.stringify({
    arrays: entries.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
  });
  const text = new TextEncoder().encode(header);
  const length = Math.ceil((4 + text.length) / 8) * 8 - 4;
  const parts: Uint8Array[] = [new Uint8Array(4 + length).fill(32)];
  new DataView(parts[0].buffer).setUint32(0, length, true);
  parts[0].set(text, 4);
  for (const { data, dtype } of entries) {
    const array = dtype === 'f4' ? Float32Array.from(data) : Float64Array.from(data);
    const padded = new Uint8Array(Math.ceil(array.byteLength / 8) * 8);
    padded.set(new Uint8Array(array.buffer));
    parts.push(padded);
  }
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole.buffer;
}
