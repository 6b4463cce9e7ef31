"""Conditions on batches and modes: noise, kinds of data, replicas, validation data, dropout and timing."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.loss_gap import BEYOND_DOUBT, ERROR_HARM, NOTE_HARM, WARNING_HARM, Gap
from tb_bnlens.analysis.measured import MOST
from tb_bnlens.analysis.rival import ERRORS_APART
from tb_bnlens.diagnosis.cause import Mask
from tb_bnlens.diagnosis.conditions import INFO, SCATTER, noisy, on_validation, whole_run
from tb_bnlens.diagnosis.severity import Severity, of_gap, of_harm

CALL_NOISE_FACTOR = 2.0
"""Two calls are on unlike data where they differ by this many times what batch noise explains."""
NOTE_ALTERNATION = 1.0
"""Without harm it is worth a note from a whole batch standard deviation."""
TRAINING_ONLY_HARM = 0.25
"""Dropout is worth a note from a quarter of the loss. It is never more than a note, since it is meant."""
FARTHER_OFF = 1.25
"""Validation data are others where some layer is a quarter farther off on them: shifts in 8 trainings made it 3 to
3,000 times as far, and in 3 without one it was 0.95 to 1.04 times."""
BATCH_SPREADS = 3.0
"""Validation has to stand this many standard deviations of a training batch's loss above training."""
COLLAPSED_SHARE = 0.05
"""Share of a layer's channels from which collapse is worth a note: a layer's figures are 95th percentiles over its
channels, so fewer cannot decide one."""


def calls_differ(f: Facts) -> Mask:
    """Shared layers whose calls differ by more than batch noise explains; or all, where the loss tells."""
    apart = f.shared & (f.layers.alternation > CALL_NOISE_FACTOR * f.call_noise)
    return f.shared if not apart.any() and one_mean_costs(f) else apart


def one_mean_costs(f: Facts) -> bool:
    """Whether one mean for all calls surely takes most of the gap, and batches that are as noisy as that do not.

    Calls may differ by little and in a direction on which the loss depends, as real and generated rows do.
    """
    c, m = f.composition, f.measured
    if c is None or m is None or not of_gap(f.gap) > INFO:
        return False
    calls, larger = c.of_calls, m.gap("pooled", m.trained)
    of_company = max(larger.value, 0.0) if larger.known else 0.0
    surely = calls.known and calls.value > ERRORS_APART * calls.uncertainty
    return surely and calls.value - of_company >= MOST * f.gap.value


def worst_turn(f: Facts, _where: Mask) -> Severity:
    """The gap at its worst: typical, or at one probe in ten."""
    # What fits the mean of all batches may fail only where one kind follows another.
    return max(of_gap(f.gap), of_gap(f.jump_over_batch))


def noise_cost(f: Facts, _where: Mask) -> Severity:
    """What no averaging takes away."""
    return of_gap(f.noise)


def fixed_statistics_fail(f: Facts) -> Mask:
    """The best fixed statistics lose against batch statistics, and single batches do scatter."""
    return whole_run(of_gap(f.noise) > INFO and not f.largest_scatter < SCATTER)


def scattering(f: Facts, _where: Mask, _severity: Severity) -> Mask:
    """Layers that scatter at least half as much as the noisiest."""
    if math.isnan(f.largest_scatter):
        return f.layers.updating
    return np.asarray(f.layers.scatter >= max(SCATTER, 0.5 * f.largest_scatter))


def replicas_apart(f: Facts) -> Mask:
    """Layers whose replicas differ by more than batch noise explains."""
    return np.asarray(f.layers.replica_spread > np.maximum(f.replica_noise, f.layers.tolerance))


def worst_replica(f: Facts, _where: Mask) -> Severity:
    """The gap; where the losses of each replica's batches are known, the largest of theirs."""
    apart = [inference - batch for inference, batch in f.manifest.ranks]
    return max([of_gap(f.gap), *(of_harm(f.losses.harm(gap)) for gap in apart if math.isfinite(gap))])


def is_pair(calls: int) -> bool:
    """Whether a layer sees two kinds of data. A single call is one that nobody has counted yet."""
    return calls == 2


def is_more_than_a_pair(calls: int) -> bool:
    """Whether a layer sees more than two kinds of data."""
    return calls > 2


def validation_cost(f: Facts, _where: Mask) -> Severity:
    """The gap on validation data."""
    return of_gap(f.validation_gap)


def shifted(f: Facts) -> Mask:
    """Validation data suffer, and not just as training data do, which suffer too little for a warning.

    Where no layer's moving statistics are farther from them than from training data, they are no other data.
    """
    there, here = validation_distance(f), f.layers.distance
    no_farther = np.isfinite(there).any() and not (there > FARTHER_OFF * here).any()
    suffers = of_gap(f.validation_gap) > INFO and not no_farther
    return whole_run(suffers and (of_gap(f.gap) > INFO or _beyond(f.validation_gap, f.gap, f).at_least(NOTE_HARM)))


def _beyond(there: Gap, here: Gap, f: Facts) -> Gap:
    """What a gap on validation data is more than one on training data."""
    noise = math.hypot(*(x.uncertainty if x.uncertainty >= 0 else 0.0 for x in (there, here)))
    beyond = there.value - here.value
    return Gap(beyond, noise, f.losses.harm(beyond))


def gap_explains_shift(f: Facts, _where: Mask) -> bool:
    """Recalibrated statistics serve both data or neither, or what they do is not known."""
    return not of_gap(f.renewed_validation_gap) > INFO or of_gap(f.drift_left) > INFO


def lag_explains_shift(f: Facts, _where: Mask) -> bool:
    """Recalibrated statistics of training data serve validation data."""
    return on_validation(f) > INFO


def constant_explain_shift(f: Facts, _where: Mask) -> bool:
    """Batch statistics in every layer, constant ones too, win as much on training data.

    On validation data no pass leaves constant layers on their statistics, so both data are held against batch
    statistics everywhere.
    """
    here = f.undone("batch")
    return here.known and not of_gap(_beyond(f.validation_gap, here, f)) > INFO


def validation_distance(f: Facts) -> NDArray[np.float64]:
    """Moving statistics against those of validation data, [L]."""
    found = np.empty(0) if f.evidence is None else f.evidence.layers.get("validation_distance_rms", np.empty(0))
    return found if len(found) else f.layers.validation_distance


def off_on_validation(f: Facts, _where: Mask, _severity: Severity) -> Mask:
    """Layers that are twice as far off on validation data as on training data."""
    there = validation_distance(f)
    return np.asarray(~np.isnan(there) & (there > 2 * np.fmax(f.layers.distance, f.layers.tolerance)))


def overfitted(f: Facts) -> Mask:
    """Validation loss is far above training loss."""
    return whole_run(_far_above(f.validation_excess))


def gap_explains_validation(f: Facts, _where: Mask) -> bool:
    """Recalibrated statistics bring validation loss near training loss, or what they do there is not known."""
    return not _far_above(f.renewed_excess)


def _far_above(excess: Gap) -> bool:
    if math.isnan(excess.uncertainty):  # of a single batch of validation data
        return excess.harm >= BEYOND_DOUBT
    # Two different batches, so the spread between batches comes in, which it does not in paired losses.
    return excess.harm >= ERROR_HARM and excess.value >= BATCH_SPREADS * excess.uncertainty


def dropout_hidden(f: Facts) -> bool:
    """Frozen layers that do not fit the data hide what dropout does."""
    # In training frozen layers keep their statistics, so batch statistics are no fair rival where those are off.
    return f.constant_far and f.dropout_rival == "batch"


def gap_is_greater(f: Facts, _where: Mask) -> bool:
    """BatchNorm costs at least as much as dropout."""
    return not f.gap.value < f.dropout.value


def update_felt(f: Facts) -> Mask:
    """The weight update changes the loss of its batch by enough to notice."""
    # The averaging over an epoch differs in every run that still learns; the update does where it takes large steps.
    size, noise = abs(f.update.value), f.update.uncertainty if f.update.uncertainty >= 0 else 0.0
    return whole_run(f.losses.harm(size) >= WARNING_HARM and size > 2.0 * noise)


def timing_is_greatest(f: Facts, _where: Mask) -> bool:
    """The update or the averaging is the largest part of what fit and evaluate differ by."""
    other = max(abs(g.value) if g.known else 0.0 for g in (f.before_update, f.dropout_before_update))
    return max(abs(f.update.value), abs(f.averaging.value)) > other


def mostly_dropout(f: Facts, where: Mask) -> bool:
    """Dropout is the largest part."""
    return not timing_is_greatest(f, where) and not abs(f.before_update.value) > abs(f.dropout_before_update.value)


def mostly_batchnorm(f: Facts, where: Mask) -> bool:
    """The modes of BatchNorm are the largest part."""
    return not timing_is_greatest(f, where)


def one_value(f: Facts) -> Mask:
    """Updating layers to which a batch of one row gives a single value a channel, so that no channel has a variance.

    Images have many values a channel in a row.
    """
    return np.asarray(f.layers.updating & (f.layers.collapsed >= f.layers.channels) & np.bool_(f.batches.size == 1))


def one_value_each(f: Facts, where: Mask) -> bool:
    """All of these layers are such, or all that update where it is about the run."""
    there = where & f.layers.updating if where.ndim else f.layers.updating
    return bool(there.any() and one_value(f)[there].all())


def noisy_have_one_value(f: Facts, where: Mask) -> bool:
    """The layers of these that scatter are such, or all are where none does."""
    scattering_ones = noisy(f, where)
    return one_value_each(f, scattering_ones if scattering_ones.any() else where)


def collapsed(f: Facts) -> Mask:
    """Layers with enough channels of next to no variance."""
    return np.asarray(f.layers.collapsed >= np.maximum(1.0, COLLAPSED_SHARE * f.layers.channels))
