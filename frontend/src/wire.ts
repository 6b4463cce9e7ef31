/**
 * What the plugin's routes answer. The Python side that writes it is tb_bnlens/report.py (Report, RunReport)
 * and tb_bnlens/plugin/; golden files written by pytest are read by vitest, so the two cannot drift apart.
 *
 * Routes, all GET, relative to `data/plugin/bn_lens/`:
 *   runs                              -> RunList
 *   overview?run=R                    -> Overview
 *   losses?run=R                      -> frame: steps f64 [P], wall_times f64 [P], one f32 [P] per `${probe}/${row}` with data
 *   series?run=R&row=distance_rms     -> frame: steps f64 [T], wall_times f64 [T], values f32 [T, L]
 *                                        (row: any of metadata.LAYER_ROWS, "steps_to_converge" or "variance_ratio")
 *   layer?run=R&layer=3               -> frame: steps f64 [T], wall_times f64 [T], one f32 [T] per row of metadata.LAYER_ROWS
 *   channels?run=R&layer=3            -> frame: steps f64 [S], values f32 [S, 4, C] (metadata.CHANNEL_ROWS)
 * An error is a JSON body {"error": "sentence that says what to do"} with status 400, 404 or 500.
 *
 * A frame is: uint32 LE length n of the header; n bytes of UTF-8 JSON Frame header, padded with spaces so that
 * 4 + n is a multiple of 8; then the arrays one after another, little endian, each padded to 8 bytes.
 */

export interface FrameHeader {
  arrays: { name: string; dtype: 'f4' | 'f8'; shape: number[] }[];
}

export type Severity = 'error' | 'warning' | 'info' | 'none';
export type Status = 'pass' | 'another_cause' | 'fail' | 'not_applicable' | 'not_evaluated' | 'error';

export interface RunList {
  runs: RunEntry[];
  /** Sentences on the logdir as a whole. */
  problems: string[];
}

export interface RunEntry {
  run: string;
  /** null until the run was analysed; `runs` never waits for an analysis, `overview` does it. */
  severity: Severity | null;
  verdict: string | null;
  last_step: number | null;
}

export interface Losses {
  step: number | null;
  training: number | null;
  batch: number | null;
  inference: number | null;
  recalibrated: number | null;
  /** The same with statistics of other batches at the present weights, where measured; stale and noise are told by it. */
  recalibrated_now?: number | null;
  /** training - batch: dropout and other training-only layers. */
  dropout: number | null;
  /** inference - recalibrated: stale statistics. */
  stale: number | null;
  /** recalibrated - batch: batch noise. */
  noise: number | null;
  /** The same kinds on validation data, where the user passed some. */
  validation?: Losses;
  /** Loss kinds that were evaluated and are not finite. */
  overflowed?: string[];
  /** Loss kind -> why it is not evaluated. */
  not_evaluated: Record<string, string>;
  forecast: { updates: number; loss: number }[];
  replayed: { momentum: number; loss: number }[];
}

/** One number with what it is measured against. */
export interface Evidence {
  label: string;
  value: number | string | null;
  limit: number | string | null;
  unit: string;
}

export interface Finding {
  rule: string;
  status: Status;
  severity: Severity;
  title: string;
  /** One sentence with the numbers. For passed rules: why it passed; for others: why it could not be judged. */
  summary: string;
  description: string;
  layers: string[];
  layer_indices: number[];
  first_step: number | null;
  last_step: number | null;
  /** Updates; "never" where waiting does not help; null where it does not apply. */
  steps_to_converge: number | 'never' | null;
  evidence: Record<string, Evidence>;
  /** Causes that look alike, and the number that rules each out. */
  ruled_out: { cause: string; reason: string }[];
  /** Copyable Keras code. */
  fix: string;
  /** What is seen next if the fix was right. */
  next: string;
  /** The user silenced it for all its layers. */
  silenced: boolean;
  /** Id of the failed rule of which this failure is a symptom; it counts for nothing then. */
  explained_by?: string | null;
}

export interface LayerReport {
  index: number;
  name: string;
  channels: number;
  momentum: number;
  momentum_effective: number | null;
  epsilon: number;
  axis: number;
  kind: string;
  order: number;
  state: string;
  updates: number | null;
  distance: number | null;
  distance_p95: number | null;
  steps_to_converge: number | 'never' | null;
  /** The same for the worst channel. */
  steps_to_converge_worst: number | 'never' | null;
  /** Why never, or why no estimate is given. */
  steps_reason: string;
  /** Convergence errors e (see metadata.LAYER_ROWS), which shrink by beta an update. */
  error_p95: number | null;
  error_max: number | null;
  /** Part of error_p95 that the movement of the batch statistics keeps up (analysis/convergence.py). */
  error_renewed: number | null;
  mean_error: number | null;
  variance_ratio: number | null;
  /** Standard deviation of one batch's mean, in channel standard deviations. */
  noise_mean: number | null;
  /** Drift of the batch statistics a step, in channel standard deviations; 0 where not significant. */
  drift: number | null;
  /** drift * beta / (1 - beta). */
  permanent_lag: number | null;
  worst_channel: number | null;
  attribution: number | null;
  replayed: { momentum: number; distance: number }[];
  findings: string[];
}

export interface RunEvent {
  step: number;
  kind: string;
  text: string;
  layers: number[];
}

export interface Overview {
  format: number;
  run: string;
  verdict: string;
  severity: Severity;
  last_step: number | null;
  losses: Losses;
  /** Ordered: failures by severity, then the rest. */
  findings: Finding[];
  layers: LayerReport[];
  events: RunEvent[];
  /** Sentences: what could not be recorded, what the reader left out, what TensorBoard dropped. */
  notes: string[];
  planned_steps: number | null;
  batch_size: number | null;
  replicas: number;
  tolerance: number;
  /** Share of training time that recording took; null where unknown. */
  overhead: number | null;
  records: number;
  probes: number;
}
