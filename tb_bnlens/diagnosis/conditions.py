"""What the rows of the table ask of the facts, each condition by name, and the limits that decide."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.exchanged import Exchange
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.lag import LARGE_DISTANCE
from tb_bnlens.analysis.loss_gap import ERROR_HARM, WARNING_HARM, Gap
from tb_bnlens.analysis.parts import LEAST, MOST
from tb_bnlens.diagnosis.cause import Mask
from tb_bnlens.diagnosis.severity import Severity, estimated, of_gap, of_harm
from tb_bnlens.metadata import EventKind, replay_row

NONE, INFO, WARNING, ERROR = Severity

WINDOW_FACTOR = 1.25
"""The window 1/(1-momentum) that the statistics show has to differ by a quarter: the estimate is good to a few parts
in a thousand, and no two momentum values in use are closer."""
CALL_NOISE_FACTOR = 2.0
"""Two calls are on unlike data where they differ by this many times what batch noise explains."""
NOTE_ALTERNATION = 1.0
"""Without harm it is worth a note from a whole batch standard deviation."""
PASTED = 0.5
"""At or below this momentum the last batch counts for as much as all before, which is seldom meant."""
SCATTER = 0.05
"""Statistics have to scatter this much, as a distance, before the loss can depend on it: below it three measured
networks lost 10 to 30% at most."""
OUTLIER = 3.0
"""The last batch is an outlier when its distance is this many times that of usual batches."""
LAST_BATCH_SHARE = 0.05
"""Disturbance of the moving statistics, (1 - momentum) * distance, from which it can matter; as ``SCATTER``."""
DEVIATIONS = 5.0
"""The last probe stands out at this many robust standard deviations above those before it."""
LONGER_HELPS = 0.75
"""Averaged weights resemble a long stretch of training, so a longer average of the statistics does better, here by a
quarter; where weights drift a shorter one does."""
TRAINING_ONLY_HARM = 0.25
"""Dropout is worth a note from a quarter of the loss. It is never more than a note, since it is meant."""
BATCH_SPREADS = 3.0
"""Validation has to stand this many standard deviations of a training batch's loss above training."""
COLLAPSED_SHARE = 0.05
"""Share of a layer's channels from which collapse is worth a note: a layer's figures are 95th percentiles over its
channels, so fewer cannot decide one."""


# --- conditions that several rows share ----------------------------------------------------------------


def whole_run(holds: bool) -> Mask:
    """A cause of the run rather than of some layers, []."""
    return np.array(bool(holds))


def any_run(_: Facts) -> bool:
    """It is about every run."""
    return True


def has_layers(f: Facts) -> bool:
    """The model has BatchNorm layers."""
    return f.has_layers


def updates(f: Facts) -> bool:
    """Some layer's moving statistics are updated."""
    return bool(f.layers.updating.any())


def over_time(f: Facts) -> bool:
    """The course of training was recorded, and not one moment alone."""
    return not f.checked


def lag_known(f: Facts) -> bool:
    """The moving statistics of some updating layer were held against batch statistics."""
    return not np.isnan(f.layers.error[f.layers.updating]).all()


def far(f: Facts, where: Mask) -> bool:
    """Some of these layers are far off, whatever the loss says."""
    return float(np.nanmax(f.layers.distance[where], initial=0.0)) >= LARGE_DISTANCE


def free(_f: Facts, _where: Mask) -> Severity:
    """It takes nothing of the inference loss."""
    return NONE


def whole_gap(f: Facts, _where: Mask) -> Severity:
    """All that BatchNorm costs at inference."""
    return of_gap(f.gap)


def of_part(f: Facts, part: Gap) -> Severity:
    """What a cause takes whose intervention was measured.

    The main cause is as grave as the gap. Another one counts by itself, where it takes enough of the gap to be told
    from what the causes make together. Inference can be no worse than batch statistics and yet far from what it could
    be: that is a warning at most.
    """
    if f.parts is None:
        return NONE
    whole, share = of_gap(f.parts.whole), f.parts.share(part)
    own = min(of_gap(part), max(whole, WARNING))
    if whole <= INFO:
        return own if own > INFO else min(own, whole)
    if part.significant and share >= MOST:
        return max(own, whole)
    return own if share >= LEAST else min(own, INFO)


def start_cost(f: Facts, where: Mask) -> Severity:
    """What the initial statistics take."""
    return staleness(f, where) if f.parts is None else of_part(f, f.parts.start)


def never_cost(f: Facts, where: Mask) -> Severity:
    """What layers take that never update."""
    return staleness(f, where) if f.parts is None else of_part(f, f.parts.never_updated)


def staleness(f: Facts, _where: Mask) -> Severity:
    """The gap; or, at most a warning, what fitting statistics would take away.

    Batch statistics pay for their own noise, so inference can be no worse than they are and yet far from what it
    could be.
    """
    return max(of_gap(f.gap), min(of_gap(f.stale), WARNING))


def forever(_f: Facts) -> float:
    """Waiting does not help."""
    return math.inf


def from_start(f: Facts) -> int | None:
    """The record shows it from its first step."""
    return f.first_step


# --- what single rows ask ------------------------------------------------------------------------------


def poison(_f: Facts, _where: Mask) -> Severity:
    """An error whatever the loss: a channel with such a statistic is dead at inference, and it does not decay."""
    return ERROR


def poison_is_all(f: Facts, _where: Mask) -> bool:
    """The loss with the channels replaced was not measured."""
    return f.parts is None


def traced(f: Facts) -> bool:
    """The training step was traced, and keeps the attributes of then; others read them at each step."""
    return f.has_layers and f.in_keras


def not_as_set(f: Facts) -> Mask:
    """Layers whose statistics do not move as their attributes say."""
    off = f.off_momentum(WINDOW_FACTOR)
    if f.parts is not None:
        # Where a step is made of other data as well, its size says nothing of the momentum.
        off = off & ~f.parts.unexplained
    return off | f.frozen_yet_updating | f.thawed


def drift_cost(f: Facts, _where: Mask) -> Severity:
    """What newer statistics take away, and no more than the gap."""
    if f.parts is not None:
        return of_part(f, f.parts.rest) if f.rest_is == "drift" else NONE
    # Only what newer statistics take away is drift; without any at the present weights the pool's are too old to tell.
    told = f.present_known or not f.pool_is_old
    return min(of_gap(f.drift_cured), of_gap(f.gap)) if told else of_gap(f.gap)


def drift_noted(f: Facts, where: Mask) -> bool:
    """Without harm it is worth a note where the batch statistics were seen to move, and dropout does not explain it."""
    if f.parts is None:
        return far(f, where) or not f.evaluated
    moving = f.layers.drifting | f.layers.wandering
    return far(f, where & moving & ~(f.row("mode_distance_rms") > f.layers.tolerance))


def start_is_behind(f: Facts, where: Mask) -> bool:
    """The start explains more lagging layers than drift does, or, where it was measured, drift takes little."""
    return f.start_leads if f.parts is None else drift_cost(f, where) <= INFO


def drift_is_behind(f: Facts, _where: Mask) -> bool:
    """Drift explains more lagging layers than the start does; where it was measured, each is judged on its own."""
    return f.parts is None and f.drift_leads


def of_rest(kind: str) -> Callable[[Facts, Mask], Severity]:
    """What statistics of the past take where this is why."""

    def cost(f: Facts, _where: Mask) -> Severity:
        return NONE if f.parts is None or f.rest_is != kind else of_part(f, f.parts.rest)

    return cost


def mode_cost(f: Facts, _where: Mask) -> Severity:
    """What statistics take that were gathered with training-only layers on."""
    return NONE if f.parts is None else of_part(f, f.parts.mode)


def shifted_by_mode(f: Facts) -> Mask:
    """Layers whose statistics are those of training-only layers being on."""
    return no_layers(f) if f.parts is None else f.parts.by_mode


def moved_outside(f: Facts) -> Mask:
    """Layers whose statistics something else than training steps has moved."""
    return no_layers(f) if f.parts is None else f.parts.outside


def fed_unseen(f: Facts) -> Mask:
    """Layers that are updated by data which the lens does not see."""
    return no_layers(f) if f.parts is None or f.rest_is != "unseen" else f.parts.unexplained


def start_part(f: Facts) -> Gap:
    """What the initial statistics take."""
    return f.stale if f.parts is None else f.parts.start


def rest_part(f: Facts) -> Gap:
    """What statistics of the past take that are not the initial ones."""
    return f.undone("recalibrated_now") if f.parts is None else f.parts.rest


def outside_since(f: Facts) -> int | None:
    """First step after which the statistics were moved outside training steps."""
    return min((e.step for e in f.manifest.events if e.kind == EventKind.OUTSIDE), default=f.leap.by or None)


def drift_takes_little(f: Facts, where: Mask) -> bool:
    """The cost of drift was measured, and the loss hardly changes."""
    return f.parts is not None and drift_cost(f, where) <= INFO


def no_layers(f: Facts) -> Mask:
    """None, [L]."""
    return np.zeros(len(f.layers.names), bool)


def newer_leave_more(f: Facts, _where: Mask) -> bool:
    """Statistics at the present weights leave more of the loss than they take away."""
    left = f.drift_left
    return f.present_known and left.at_least(WARNING_HARM) and left.value > f.drift_cured.value


def frozen_far(f: Facts) -> Mask:
    """Frozen layers that are far off; if there is none, frozen layers outside the tolerance."""
    off = f.frozen & (f.layers.distance >= LARGE_DISTANCE)
    return off if off.any() else f.frozen & (f.layers.distance >= f.layers.tolerance)


def constant_cost(f: Facts, where: Mask) -> Severity:
    """What constant statistics cost, where some of these layers are off at all."""
    if not f.evaluated:
        return estimated(f.layers.distance, where) if far(f, where) else NONE
    if f.parts is not None:
        # Training suffers from these as inference does, so this is no part of what separates the two.
        return of_gap(f.parts.constant)
    off = float(np.nanmax(f.layers.distance[where], initial=0.0)) >= f.layers.tolerance
    return of_gap(f.constant_part) if f.constant_part.known and off else NONE


def calls_differ(f: Facts) -> Mask:
    """Shared layers whose calls differ by more than batch noise explains."""
    return f.shared & (f.layers.alternation > CALL_NOISE_FACTOR * f.call_noise)


def worst_turn(f: Facts, _where: Mask) -> Severity:
    """The gap at its worst: typical, or at one probe in ten."""
    # What fits the mean of all batches may fail only where one kind follows another.
    return max(of_gap(f.gap), of_gap(f.jump_over_batch))


def low_momentum(f: Facts) -> Mask:
    """Layers of the lowest momentum, where it is very low or a higher one does better."""
    low = f.low(PASTED)
    return low if f.lowest_momentum <= PASTED or higher_helps(f) else np.zeros_like(low)


def higher_helps(f: Facts) -> bool:
    """A higher momentum, replayed, does better; where it was measured on many batches, by enough to matter."""
    best = f.best_higher(PASTED)
    if best is None or f.parts is None:
        return best is not None
    return of_part(f, f.undone(replay_row(best))) > INFO


def noisy(f: Facts, where: Mask) -> Mask:
    """Those of these layers whose moving statistics scatter."""
    return where & ~(f.moving_scatter < SCATTER)


def jumps(f: Facts, where: Mask) -> Severity:
    """How far inference jumps at one probe in ten, where the statistics scatter."""
    if not f.jump.known or not noisy(f, where).any():
        return NONE
    # As for stale statistics: worse than batch statistics, or, at most a warning, worse than they could be.
    return max(min(of_gap(f.jump_over_batch), of_gap(f.jump)), min(of_gap(f.jump), WARNING))


def pasted(f: Facts, _where: Mask) -> bool:
    """The momentum is so low that it is seldom meant, and it is not the one that follows drift best."""
    follows = bool((f.layers.drifting | f.layers.wandering).any())
    best_as_it_is = bool(f.replayed) and f.best_higher(PASTED) is None and follows
    return f.lowest_momentum <= PASTED and not best_as_it_is


def pasted_layers(f: Facts, where: Mask, severity: Severity) -> Mask:
    """The layers that scatter, or for a note those of very low momentum."""
    return noisy(f, where) if severity > INFO else f.layers.updating & (f.layers.beta <= PASTED)


def short_batches(f: Facts) -> Mask:
    """Layers in which the last batch of an epoch is an outlier that the moving statistics feel."""
    return (f.last_batch > OUTLIER * f.usual_batch) & (f.last_batch_left >= LAST_BATCH_SHARE)


def moved_by_last_batch(f: Facts, _where: Mask) -> Severity:
    """How much worse inference is right after the last batch."""
    if f.parts is not None and f.at_last_step and f.rest_is == "":
        return of_part(f, f.parts.rest)
    moved = f.loss_after_last_batch
    cost = of_harm(0.0 if math.isnan(moved) else f.losses.harm(moved))
    unseen = not f.evaluated and robust.largest(f.last_batch_left) >= LARGE_DISTANCE
    return WARNING if cost is NONE and unseen else cost


def exchange_known(f: Facts) -> bool:
    """There are probes before and after the exchange, or it was measured at the end."""
    return over_time(f) and (f.exchange is not None or f.parts is not None)


def exchanged(f: Facts) -> Mask:
    """The weights after the last step are not the ones of the statistics."""
    return whole_run(exchange_cost(f, whole_run(True)) > INFO)


def exchange_cost(f: Facts, where: Mask) -> Severity:
    """What the exchange costs; where it was measured, no more than what statistics of the present weights undo."""
    if f.parts is not None and f.rest_is == "exchanged":
        return of_rest("exchanged")(f, where)
    told = NONE if f.exchange is None else exchange_severity(f.exchange)
    if f.parts is None:
        return told
    sudden = f.rest_is == "" and told > INFO
    return of_part(f, f.parts.rest) if sudden else NONE


def exchange_severity(x: Exchange) -> Severity:
    """The last probe stands out, or the weights' own statistics do better and a long average explains it."""
    own = NONE if math.isnan(x.present) else of_gap(x.over_present)
    sudden = all(d > DEVIATIONS and h < WARNING_HARM for d, h in zip(x.deviations, x.usual_harm, strict=True))
    stands_out = sudden and x.pooled_over_batch.at_least(WARNING_HARM)
    if own >= WARNING:
        stands_out = stands_out or x.announced
    elif not math.isnan(x.present):
        # One probe stands out by chance; the weights' own statistics have to do better, too.
        stands_out = False
    averaged = x.longer < LONGER_HELPS * x.newest and x.usual_harm[1] < WARNING_HARM
    foreign = own if x.announced or averaged else NONE
    return max(of_gap(x.over_batch) if stands_out else NONE, min(foreign, WARNING))


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


def validation_cost(f: Facts, _where: Mask) -> Severity:
    """The gap on validation data."""
    return of_gap(f.validation_gap)


def validation_distance(f: Facts) -> NDArray[np.float64]:
    """Moving statistics against those of validation data, [L]."""
    found = np.empty(0) if f.evidence is None else f.evidence.layers.get("validation_distance_rms", np.empty(0))
    return found if len(found) else f.layers.validation_distance


def off_on_validation(f: Facts, _where: Mask, _severity: Severity) -> Mask:
    """Layers that are twice as far off on validation data as on training data."""
    there = validation_distance(f)
    return np.asarray(~np.isnan(there) & (there > 2 * np.fmax(f.layers.distance, f.layers.tolerance)))


def gap_since(f: Facts) -> int | None:
    """Step from which the gap has been a warning at every probe."""
    with np.errstate(invalid="ignore"):
        gap = (f.history.loss("inference") - f.history.loss("batch")).astype(np.float64)
    fine = np.flatnonzero(gap < WARNING_HARM * f.losses.scale)
    start = int(fine[-1]) + 1 if len(fine) else 0
    later = [int(s) for s, g in zip(f.history.loss_steps[start:], gap[start:], strict=True) if not math.isnan(g)]
    return later[0] if later else None


def overfitted(f: Facts) -> Mask:
    """Validation loss is far above training loss."""
    excess = f.validation_excess
    # Two different batches, so the spread between batches comes in, which it does not in paired losses.
    return whole_run(excess.harm >= ERROR_HARM and excess.value >= BATCH_SPREADS * excess.uncertainty)


def dropout_hidden(f: Facts) -> bool:
    """Frozen layers that do not fit the data hide what dropout does."""
    # In training frozen layers keep their statistics, so batch statistics are no fair rival where those are off.
    mismatch = f.constant & (f.layers.distance >= LARGE_DISTANCE)
    return bool(mismatch.any()) and f.dropout_rival == "batch"


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


def collapsed(f: Facts) -> Mask:
    """Layers with enough channels of next to no variance."""
    return np.asarray(f.layers.collapsed >= np.maximum(1.0, COLLAPSED_SHARE * f.layers.channels))
