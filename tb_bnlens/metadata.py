"""The contract on disk: plugin names, tags, the format version and the names of every row.

The data that these names describe is stored in users' event files, so it stays supported: a name is
never reused for another meaning, new names go to the end of a tuple, and a reader ignores the positions it
does not know. Everything here is standard library only, because the plugin's loader imports it.
"""

from __future__ import annotations

from enum import Enum


class Name(str, Enum):
    """Names that stand in records, in the order of their positions there. Each is a string and prints as one."""

    __str__ = str.__str__

    def __format__(self, spec: str) -> str:
        return str(self).__format__(spec)

    @property
    def position(self) -> int:
        """Where it stands among the others."""
        return list(type(self)).index(self)


PLUGIN_NAME = "bn_lens"
# Per-channel snapshots are large and few. TensorBoard caps the records it keeps per plugin name, so they get
# a name, and with it a cap, of their own.
CHANNELS_PLUGIN_NAME = "bn_lens_channels"

FORMAT = 1
"""Version of everything below. It is written as the summary's ``plugin_content`` and in the manifest."""

CHECKPOINTS = "checkpoints"
"""``Manifest.source`` of a record that was made from saved weights."""

FRAMEWORKS = KERAS, KERAS_2, TORCH, FLAX = "keras", "tf_keras", "torch", "flax"
"""``Manifest.framework``: whose recorder wrote the record. Sentences and code are in the words of that framework."""

HOW_TO_RECORD = (
    "train with callbacks=[tb_bnlens.BNLens(log_dir)], or in PyTorch with tb_bnlens.torch.Recorder(model, log_dir)"
)
"""For messages where there is no record."""

RUN_SUFFIX = "bn_lens"
"""``BNLens("runs/exp1")`` writes into ``runs/exp1/bn_lens``; the tab and the report show ``exp1``."""

MANIFEST_TAG = "bn_lens/manifest"
LAYERS_TAG = "bn_lens/layers"
LOSSES_TAG = "bn_lens/losses"
CHANNELS_TAG = "bn_lens/channels"
EVIDENCE_TAG = "bn_lens/evidence"
SCALAR_TAG = "bn_lens/loss"


def channels_tag(index: int) -> str:
    """Tag of the per-channel snapshots of the layer with this index in the manifest."""
    return f"{CHANNELS_TAG}/{index:05d}"


def scalar_tag(probe: str, kind: str) -> str:
    """Tag of the plain scalar that repeats one paired loss for TensorBoard's own Time Series tab."""
    return f"{SCALAR_TAG}/{kind}" if probe == "train" else f"{SCALAR_TAG}_{probe}/{kind}"


def plugin_content() -> bytes:
    """The summary metadata: the format alone, since TensorBoard repeats it in every event."""
    return str(FORMAT).encode("ascii")


# --- what a layer is doing -----------------------------------------------------------------------------


class State(Name):
    """Values of the ``state`` row, by position: what the layer *does*, not what its flag says."""

    UNKNOWN = "unknown"  # not enough snapshots yet
    UPDATING = "updating"  # the moving statistics change as the momentum says
    FROZEN = "frozen"  # trainable=False: inference mode in Keras 3, by choice
    INFERENCE_MODE = "inference_mode"  # trainable, yet called in inference mode: its statistics are constant
    NEVER_UPDATED = "never_updated"  # training mode, yet bit-identical to its start


STATES = tuple(State)


class EventKind(Name):
    """What can happen to a run; the manifest names it."""

    START = "start"
    RESTART = "restart"  # recording continues in a directory, or at an earlier step
    FIT = "fit"  # a further fit of this network begins
    NEW_STATISTICS = "new_statistics"  # trained layers begin with the statistics of new ones
    LEFT_OUT = "left_out"  # the optimizer was not built for the weights of these trainable layers
    RECOMPILE = "recompile"
    FREEZE = "freeze"
    UNFREEZE = "unfreeze"
    MOMENTUM = "momentum"
    AVERAGED = "averaged"  # averaged weights were put into the model
    DATA_CHANGED = "data_changed"  # the kept batches from this step on are of another kind than those before them
    OUTSIDE = "outside"  # moving statistics alone changed between two training steps
    REPLACED = "replaced"  # weights changed between two training steps, too


OWN_STEP = (
    "The model has its own train_step: the paired losses are those of compile(loss=...), which may not be what it "
    "minimizes."
)
"""A note of the manifest."""
TIME_DISTRIBUTED = "time distributed"
"""In the ``kind`` of a layer that a ``TimeDistributed`` calls once a time step."""
CUMULATIVE = "cumulative"
"""In the ``kind`` of a PyTorch layer with ``momentum=None``: its statistics are the plain mean of all batches."""

# --- the momentum values that are replayed ---------------------------------------------------------------------

REPLAY_MOMENTUMS = (0.5, 0.8, 0.9, 0.95, 0.97, 0.99, 0.997, 0.999)
"""Shadow moving averages are kept at these momentum values, from the same start and the same batches."""


def replay_row(momentum: float) -> str:
    """Row name, in LAYER_ROWS and LOSS_ROWS, of the replay at a momentum of REPLAY_MOMENTUMS."""
    return f"replay_{momentum:g}"


REPLAY_ROWS = tuple(replay_row(m) for m in REPLAY_MOMENTUMS)

HALF_PRECISION = "keep their moving statistics in half precision"
"""What a note of the manifest says of layers whose small updates are lost."""

# --- bn_lens/layers: float32 [L, K], K positions named here --------------------------------------------
#
# Notation, per channel: mu, v = mean and (biased) variance of the batch statistics, pooled over the last
# windows (the *short pool*, some 20 updates); m, s = moving_mean, moving_variance now; eps = epsilon.
# A value that was not measured is NaN.

LAYER_ROWS = (
    "state",  # position in STATES
    "updates",  # BatchNorm updates of this layer since the record began (cumulative count)
    "pool_updates",  # updates in the short pool behind mu, v (0: none yet; batches, for layers read by the probe)
    "momentum",  # the layer's attribute
    "momentum_effective",  # estimated from the moving statistics and the probe's batch statistics; NaN unless estimated
    "distance_rms",  # W = sqrt((a-1)^2 + b^2), a = sqrt((v+eps)/(s+eps)), b = (mu-m)/sqrt(s+eps); rms over channels
    "distance_p50",
    "distance_p95",
    "distance_max",
    "mean_error_p50",  # signed median of (m-mu)/sqrt(v+eps)
    "mean_error_p95",  # 95th percentile of its absolute value
    "mean_error_max",  # the one of largest absolute value, signed
    "variance_error_p50",  # the same three for (s-v)/max(v, eps)
    "variance_error_p95",
    "variance_error_max",
    "error_p50",  # e = max(|mu-m|/sqrt(v+eps), |s-v|/max(v,eps)) over live channels (v > 0.01 eps): since both
    "error_p95",  # terms shrink by beta an update, steps to converge = ln(e/tolerance) / -ln(beta), for any
    "error_max",  # tolerance and momentum
    "batch_mean_rms",  # rms over channels of mu, in activation units
    "moving_mean_rms",  # rms over channels of m
    "batch_variance_gm",  # geometric mean over channels of v + eps
    "moving_variance_gm",  # geometric mean over channels of s + eps
    "noise_mean",  # rms over channels of sd(single batch's mean)/sqrt(v+eps), from single-update windows
    "noise_variance",  # median over channels of sd(single batch's variance)/max(v, eps)
    "noise_updates",  # single-update windows behind the two (0: none)
    "between_within",  # median over channels of var(batch means)/mean(v/batch_size), batches at the same weights: at
    # most about 1 for batches of independent samples, whatever the correlation within a sample
    "shift",  # rms over channels of (mu_short - mu_long)/sqrt(v+eps): the short pool against the long one
    "shift_noise",  # what batch noise alone makes of it: noise_mean * sqrt(1/n_short + 1/n_long)
    "shift_span",  # steps between the centres of the two pools
    "lag_cosine",  # cosine over channels of the lag (mu-m)/sd now and one short pool earlier: 1 keeps its sign
    "channels_nonfinite",  # channels with a non-finite moving statistic or a negative moving variance
    "window_nonfinite",  # channels with non-finite batch statistics in the windows since the last record
    "channels_collapsed",  # channels with v <= eps: dead or constant
    "worst_channel",  # index of the channel of largest W
    "since_min",  # over all snapshots since the last record: least, mean and greatest rms distance of a single
    "since_mean",  # window's statistics from the moving statistics
    "since_max",
    "since_max_step",  # the step of the greatest
    "epoch_end_distance",  # the same distance for the window that held the last batch of the last epoch
    "start_distance",  # rms over channels of the change of (m, s) since the record began; 0 is bit-identical
    "validation_distance_rms",  # rms W between the batch statistics of validation data and the moving ones
    "replica_spread",  # rms over channels of sd over replicas of m / sqrt(v+eps); NaN without replicas
    "call_alternation",  # layers called several times a step: rms distance between the calls' batch statistics
    "attribution",  # loss in batch mode with this layer alone on its moving statistics
    *REPLAY_ROWS,  # distance_rms had the momentum been this
)

LAYER_INDEX = {name: i for i, name in enumerate(LAYER_ROWS)}

# --- bn_lens/losses: float32 [probes, kinds] -----------------------------------------------------------

PROBES = ("train", "validation")

FORECAST_POINTS = 6


class LossKind(Name):
    """The paired losses: one batch, one set of weights, several normalizations."""

    TRAINING = "training"  # batch statistics as fit uses them, dropout on
    BATCH = "batch"  # batch statistics in every layer, everything else in inference mode
    INFERENCE = "inference"  # moving statistics: what test_on_batch gives
    RECALIBRATED = "recalibrated"  # the short pool's statistics in place of the moving ones
    RECALIBRATED_LONG = "recalibrated_long"  # the long pool's
    UPDATED = "updated"  # inference again on the same batch, after the training step that followed


LOSS_KINDS = tuple(LossKind)
LOSS_ROWS = (
    *LOSS_KINDS,
    *REPLAY_ROWS,  # inference, had the momentum been this from the start of the record
    *(f"forecast_step_{i}" for i in range(FORECAST_POINTS)),  # n: updates ahead
    *(f"forecast_{i}" for i in range(FORECAST_POINTS)),  # inference after n more updates at these weights
    "fit_loss",  # the loss in fit's progress bar at this step: a mean over the epoch so far, before each update
    "learning_rate",
    "batch_size",  # samples in the probed batch
    "short_updates",  # updates in the short pool (median over updating layers)
    "long_updates",  # updates in the long pool
    "overhead",  # share of wall time since the start of training that recording took, tracing left out
    "tracing_seconds",  # one-time cost of tracing the probe so far
    "step_seconds",  # median time of a training step
    "recalibrated_now",  # inference with the mean statistics of other kept batches, run at the present weights:
    # against it "recalibrated", whose windows are of past weights, tells drift from batch noise
    "now_batches",  # batches behind it
    "target_entropy",  # of the shares of the classes in the probed batch's targets, nats; -1: they are no classes
)
LOSS_INDEX = {name: i for i, name in enumerate(LOSS_ROWS)}

# --- bn_lens/channels/00000: float32 [4, C] ------------------------------------------------------------

CHANNEL_ROWS = ("batch_mean", "batch_variance", "moving_mean", "moving_variance")

# --- bn_lens/evidence: JSON ----------------------------------------------------------------------------
#
# One object: {step, moment, batches: {steps, sizes, phases}, passes: {name: {losses, sizes?, metrics?}}, validation and
# earlier (inference and batch on batches from before the data changed) likewise, samples: {name:
# {figure: number}}, layers: {row: [L]}, groups: {name: [layer]}, not_evaluated: {name: reason}, seconds}. ``sizes``
# stands with a pass only where they are not those of ``batches``. Numbers have seven
# digits; what is not finite is written as "NaN", "Infinity" or "-Infinity".


class Moment(Name):
    """When a measurement on many batches was made."""

    INTERIM = "interim"  # during training
    END = "end"  # at the end of a run
    CHECK = "check"  # of a model without training


MOMENTS = tuple(Moment)

PASSES = (
    "inference",  # moving statistics, everything else in inference mode: what evaluate gives
    "batch",  # each batch's own statistics in every layer, everything else in inference mode
    "batch_as_trained",  # the same, with those layers on their moving statistics that training leaves on them
    "training",  # as fit does: dropout on
    "recalibrated",  # mean of the other batches' statistics, dropout off, in layers that training normalizes by batch
    "recalibrated_all",  # in every layer: what recalibrate(model, data, frozen=True) gives
    "with_dropout",  # statistics gathered with dropout on, as training gathers them; inference with dropout off
    "robust",  # median over batches in place of the mean
    "calls_averaged",  # batch, with one mean of its statistics for all calls of a layer in place of each call's own
    "counted",  # statistics of the rows that count alone, where others have a sample weight of 0
    "recombined",  # batch, on new compositions of the same rows
    "pooled",  # batch, on new compositions of four times the size
    "perturbed",  # inference with quite other statistics: does it react to them at all?
    "one_at_a_time",  # inference on single rows, where it does not react or a layer normalizes by the batch in it
    "on_moving",  # every layer on its moving statistics, where some are called with training=True at inference
    *REPLAY_ROWS,  # inference, had the momentum been this from the start of the record
    "mismatched",  # as training sees it, each row held against the target of another: the loss of knowing nothing
    "ordinary",  # statistics of the rows whose inputs are not far outside of where most lie
    "recombined_inference",  # inference on the compositions of recombined: differs where the loss compares rows
    "swapped",  # mismatched, with the targets of other rows of the same batch: low where a batch is of one class
)
"""Passes without a group. ``put_right:GROUP`` is inference with one group of layers on recalibrated statistics, and
``only:GROUP`` is ``batch`` with that group alone on its moving statistics."""

GROUPS = (
    "nonfinite",  # channels whose moving statistics are not finite, or negative as a variance
    "initial",  # layers whose statistics are exactly 0 and 1
    "frozen",
    "inference_mode",
    "never_updated",
    "updating",
    "from_start",  # updating, with more of the start left in them than the tolerance
    "settled",  # updating, with less
)
"""Groups of layers that are measured one at a time. Channels of ``nonfinite`` are put right in the passes of all other
groups, or every loss would be NaN."""

SAMPLE_FIGURES = (
    "count",
    "mean",
    "q01",
    "q10",
    "median",
    "q90",
    "q99",
    "max",
    "share_higher",  # rows whose difference is larger than the spread (q10 to q90) of the second pass' losses
    "share_of_top",  # what the 5% largest differences make up of the sum of the positive ones
    "deviation",  # standard deviation
)

EVIDENCE_ROWS = (
    # Moving statistics against those of the batches at these weights: as in LAYER_ROWS.
    "distance_rms",
    "distance_p95",
    "error_p50",
    "error_p95",
    "error_max",
    "mean_error_p50",
    "mean_error_p95",
    "variance_error_p50",
    "variance_error_p95",
    "reference_noise",  # rms over channels of the standard error of the batches' mean statistics, in the units of W
    "noise_mean",  # rms over channels of sd(batch means)/sqrt(v+eps)
    "noise_variance",  # median over channels of sd(batch variances)/v
    "between_within",  # median over channels of var(batch means)/mean(v/batch_size)
    "dominance_p50",  # mean over median of single batches' variances: median over channels
    "dominance_max",  # and their maximum
    "mode_distance_rms",  # W between statistics gathered with training-only layers on and off
    "mode_variance_p50",  # median over channels of variance with them on over variance with them off
    "with_dropout_distance_rms",  # W between the moving statistics and those gathered with them on
    "counted_distance_rms",  # W between the statistics of all rows and of the rows that count
    "initial_share",  # share of channels at exactly 0 and 1
    "nonfinite_share",
    "validation_distance_rms",  # W between the moving statistics and the validation batches'
    "calls",  # calls in a forward pass
    "updates",  # since the record began
    "start_left",  # share of the start left in the moving statistics: momentum to the power of the updates
    "decay_observed",  # factor by which a step shrinks the distance to what is averaged, from the statistics alone;
    # weights that move make it larger, so that only a value below decay_expected tells of further updates
    "decay_expected",  # momentum to the power of the calls
    "update_explained",  # squared cosine of a real step and that expected of the batch that the lens saw: 1 where the
    # batch explains it, less where the step transforms its input or feeds the layer other data as well
    "batch_at_inference",  # 1 where the layer normalizes by the batch when the model is called in inference mode
    "ordinary_distance_rms",  # W between the statistics of all rows and of the rows with ordinary inputs
    "extreme_share",  # share of rows whose inputs are not: the same in all layers; NaN where inputs cannot be compared
    "dominance_mixed",  # dominance_max of new compositions of the same rows: as large where it is rows that set it
)
