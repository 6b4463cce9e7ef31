/**
 * What the JSON routes answer. Generated from tb_bnlens/report/schema.py by `python -m tests.wire`: change it there.
 */

export type Severity = 'error' | 'warning' | 'info' | 'none';

export type Status = 'pass' | 'another_cause' | 'fail' | 'not_applicable' | 'not_evaluated' | 'error';

export type Never = 'never';

export type Ended = 'planned' | 'early' | 'interrupted';

/** Inference loss once the moving statistics have advanced by so many updates. */
export interface Forecast {
  updates: number;
  loss: number;
}

/** Inference loss now, had the momentum been this. */
export interface ReplayedLoss {
  momentum: number;
  loss: number;
}

/** A layer's distance now, had the momentum been this. */
export interface ReplayedDistance {
  momentum: number;
  distance: number;
}

/** Losses of the same batches at the same weights under several normalizations. Null where not measured. */
export interface PairedLosses {
  step: number | null;
  /** Batches of the whole last stretch of training that these are means over; null for those of the last probe. */
  batches: number | null;
  /** Batch statistics as in fit, training-only layers on. */
  training: number | null;
  /** Batch statistics in every layer, training-only layers off. */
  batch: number | null;
  /** Moving statistics. */
  inference: number | null;
  /** Other statistics in place of the moving ones: the mean of the other batches' at the present weights, or for a
    probe the mean of the last windows of training. Layers that training leaves alone keep theirs, as with
    `recalibrate(model, data)`; null where all do. */
  recalibrated: number | null;
  /** The same over more windows. */
  recalibrated_long: number | null;
  /** Inference on the same batch after the weight update that followed. */
  updated: number | null;
  /** Mean statistics of other batches at the present weights; `stale` and `noise` use it where it is known. */
  recalibrated_now: number | null;
  /** training - batch: dropout and other training-only layers. */
  dropout: number | null;
  /** inference - recalibrated: stale statistics. */
  stale: number | null;
  /** recalibrated - batch: batch noise. */
  noise: number | null;
  /** Compiled metric -> loss kind -> its value over the same batches. */
  metrics: Record<string, Record<string, number | null>>;
  /** Loss kind -> why it is not measured. */
  not_evaluated: Record<string, string>;
  /** Loss kinds that were measured and are infinite. */
  overflowed: string[];
  forecast: Forecast[];
  replayed: ReplayedLoss[];
}

/** Paired losses on training batches. */
export interface Losses extends PairedLosses {
  /** The same kinds on validation data, absent where there are none. */
  validation?: PairedLosses;
  /** Share of the steps that inference undoes, 0 to 1; absent for a probe, null where nothing is undone. */
  share_undone?: number | null;
  /** Step at which the loss with batch statistics came down to what inference has now; null where nothing is undone,
    or where inference is worse than at any step. */
  as_at_step?: number | null;
  /** What inference loses against `rival_loss`, in the unit that severity goes by: a warning from 0.5, an error
    from 1. A drop of a metric counts too. Null where it was not measured or is infinite. */
  harm?: number | null;
  /** Whether it is larger than two standard errors; less is chance, and no finding rests on it. */
  harm_is_sure?: boolean;
  /** What inference is held against, in words. */
  rival?: string;
  /** Its loss over the same batches, or over new batches of the same rows; null where `batches` is. */
  rival_loss?: number | null;
}

/** One number beside the value that it is compared with. */
export interface Evidence {
  label: string;
  value: number | string | null;
  limit: number | string | null;
  unit: string;
  /** What the limit is: "threshold", "warning from", "tolerance", "run length". */
  against: string;
}

/** A cause with the same symptoms that is ruled out. */
export interface RuledOut {
  cause: string;
  /** What was measured of it. */
  reason: string;
}

/** One cause of the table and what became of it in this run. */
export interface Finding {
  /** Id of the cause; what `ignore` takes. */
  rule: string;
  /** `another_cause`: it shows, and `explained_by` names the cause behind it. */
  status: Status;
  /** `none` unless the status is `fail`. */
  severity: Severity;
  title: string;
  /** With the numbers; for other statuses than `fail` it says why. */
  summary: string;
  description: string;
  layers: string[];
  layer_indices: number[];
  first_step: number | null;
  last_step: number | null;
  /** Training steps from now; "never" where waiting does not help; null where it does not apply. */
  steps_to_converge: number | Never | null;
  /** [low, high] in training steps, 80%; null where no interval is known. */
  steps_interval: (number | Never)[] | null;
  /** False while there is too little data for an estimate; null where it does not apply. */
  steps_reliable: boolean | null;
  /** Share of the loss gap that the cause takes, 0 to 1; null where it was not measured. */
  share: number | null;
  evidence: Record<string, Evidence>;
  ruled_out: RuledOut[];
  /** Code that repairs this model; runs as printed, given `model` and `data`. May be empty. */
  rescue: string;
  /** Inference loss that was measured with the rescue in effect; null without one, and where it was not measured. */
  rescue_loss: number | null;
  /** Code for the next training; runs as printed. May be empty. */
  fix: string;
  /** What to expect if the fix was right. */
  next: string;
  /** The user silenced it for all its layers. */
  silenced: boolean;
  /** Id of the cause that it yields to; set where the status is `another_cause`. */
  explained_by: string | null;
}

/** One BatchNorm layer at the end of the record. */
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
  /** Updates until 95% of the channels are within tolerance. */
  steps_to_converge: number | Never | null;
  /** The same for the worst channel. */
  steps_to_converge_worst: number | Never | null;
  /** [low, high] in updates, 80%; null where no interval is known. */
  steps_interval: (number | Never)[] | null;
  /** False while there is too little data for an estimate; null where it does not apply. */
  steps_reliable: boolean | null;
  /** Why never, or why no estimate is given. */
  steps_reason: string;
  /** Relative errors of the moving statistics, which shrink by the momentum at each update. */
  error_p95: number | null;
  error_max: number | null;
  /** Part of `error_p95` that the movement of the batch statistics keeps up. */
  error_renewed: number | null;
  mean_error: number | null;
  variance_ratio: number | null;
  /** Standard deviation of one batch's mean, in channel standard deviations. */
  noise_mean: number | null;
  /** Drift of the batch statistics an update, in channel standard deviations; 0 where not significant. */
  drift: number | null;
  /** drift * momentum / (1 - momentum). */
  permanent_lag: number | null;
  worst_channel: number | null;
  /** Loss with batch statistics in every layer but this one. */
  attribution: number | null;
  replayed: ReplayedDistance[];
  /** Ids of the findings that name this layer. */
  findings: string[];
}

/** Something that happened to the run at a step. */
export interface RunEvent {
  step: number;
  kind: string;
  text: string;
  layers: number[];
}

/** The report of one run. */
export interface Overview {
  format: number;
  run: string;
  /** `headline` and `reasons`, joined. */
  verdict: string;
  /** What the losses say, in one sentence. */
  headline: string;
  /** Why, one sentence or two each: the causes that count, what is silenced, what could not be judged. */
  reasons: string[];
  severity: Severity;
  /** Whether this is a check of one moment (`tb_bnlens.check`), not a record of training. */
  checked: boolean;
  /** For a check the steps that the optimizer has counted, 0 where it has none. */
  last_step: number | null;
  losses: Losses;
  /** Failures by severity, then the rest. */
  findings: Finding[];
  layers: LayerReport[];
  events: RunEvent[];
  /** What could not be recorded, what the reader left out, what TensorBoard dropped. */
  notes: string[];
  planned_steps: number | null;
  /** How training ended; null while it runs, and where nothing says it: it was killed, or the record is an import. */
  ended: Ended | null;
  /** Steps made when it ended. */
  ended_step: number | null;
  /** Wall time of the last record or probe, seconds since 1970. */
  last_record: number | null;
  /** The record was made from checkpoints, after training. */
  imported: boolean;
  /** `"keras"`, `"tf_keras"` (Keras 2), `"torch"` or `"flax"`: in whose words the findings are. Every
    `momentum` in a report is the share that an update keeps, whatever the framework; PyTorch's is 1 minus it. */
  framework: string;
  batch_size: number | null;
  replicas: number;
  tolerance: number;
  /** Share of training time that recording took. */
  overhead: number | null;
  records: number;
  probes: number;
}

/** What differs between two runs, each pair in their order. */
export interface Comparison {
  runs: string[];
  severity: Severity[];
  /** In whose convention a momentum of the run is to be shown; the values are shares that an update keeps. */
  framework: string[];
  /** Name -> the two values, only where they differ. */
  settings: Record<string, unknown[]>;
  losses: Record<string, (number | null)[]>;
  /** Compiled metric -> loss kind -> the two values, for the metrics that either run was measured in. */
  metrics: Record<string, Record<string, (number | null)[]>>;
  /** `gone`, `new` and `stayed` -> ids of findings that count. */
  findings: Record<string, string[]>;
  /** Layers in both runs whose momentum or state differs: `name` in the first run, `names` in both, `momentum`,
    `state` and `distance`. */
  layers: Record<string, unknown>[];
  /** All layers in both runs whose distances are known: `name`, `names` and `distance`, the largest difference
    first. */
  distances: Record<string, unknown>[];
  /** Names of layers that one run alone has. */
  only: string[][];
}

/** The reports of several runs. */
export interface Reports {
  format: number;
  runs: Overview[];
}

/** A run that has no report. */
export interface Failure {
  run: string;
  reason: string;
}

/** What `report --json` prints. */
export interface Report extends Reports {
  /** Runs that could not be judged, with the reason; only where there are any. */
  failures?: Failure[];
  /** With `--compare` only. */
  comparison?: Comparison;
}

/** A compiled metric in the two modes that matter. */
export interface MetricPair {
  name: string;
  batch: number | null;
  inference: number | null;
}

/** What the table of runs shows of an analysed run. */
export interface RunSummary {
  severity: Severity;
  headline: string;
  /** Title of the most severe finding that counts. */
  cause: string | null;
  /** How many findings count. */
  causes: number;
  /** How many findings the user silenced. */
  silenced: number;
  /** Step of the losses. */
  step: number | null;
  /** Batches that the losses are means over; null for those of the last probe. */
  batches: number | null;
  batch: number | null;
  inference: number | null;
  /** As in the losses of the report. */
  harm: number | null;
  harm_is_sure: boolean;
  /** The first compiled metric, over the same batches; null where none was measured. */
  metric: MetricPair | null;
  /** [lowest, highest] over the layers; empty without layers. */
  momentum: number[];
  layers: number;
  last_step: number | null;
  planned_steps: number | null;
  ended: Ended | null;
  ended_step: number | null;
  last_record: number | null;
  checked: boolean;
  imported: boolean;
  framework: string;
}

/** A run in the list of runs. */
export interface RunEntry {
  run: string;
  /** Null until the run was analysed; the list never waits for an analysis. */
  severity: Severity | null;
  verdict: string | null;
  last_step: number | null;
  /** Of the last analysis, which may be of an earlier `last_step`; null until the run was analysed. */
  summary: RunSummary | null;
}

/** The runs of a log directory. */
export interface RunList {
  runs: RunEntry[];
  /** Sentences on the log directory as a whole. */
  problems: string[];
}
