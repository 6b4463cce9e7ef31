"""What the rows of the table ask of the facts, each condition by name, and the limits that decide.

Here are those on the moving average: its momentum, its start, what drifts away from it, and layers that stand still.
``in_batches`` and ``at_the_end`` have the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.lag import LARGE_DISTANCE, LAST_BATCH
from tb_bnlens.analysis.loss_gap import WARNING_HARM, Gap
from tb_bnlens.analysis.measured import LEAST, MOST, UNKNOWN
from tb_bnlens.diagnosis.cause import Mask
from tb_bnlens.diagnosis.severity import Severity, estimated, of_gap
from tb_bnlens.metadata import replay_row

NONE, INFO, WARNING, ERROR = Severity

WINDOW_FACTOR = 1.25
"""The window 1/(1-momentum) that the statistics show has to differ by a quarter: the estimate is good to a few parts
in a thousand, and no two momentum values in use are closer."""
PASTED = LAST_BATCH
"""Such a momentum is seldom meant."""
SCATTER = 0.05
"""Statistics have to scatter this much, as a distance, before the loss can depend on it: below it three measured
networks lost 10 to 30% at most."""


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
    if f.parts is None:
        return max(staleness(f, where), on_validation(f))
    leads = f.parts.start.value >= f.parts.rest.value
    return max(of_part(f, f.parts.start), on_validation(f) if leads else NONE)


def rest_cost(f: Facts) -> Severity:
    """What statistics of the past take that are not the initial ones."""
    assert f.parts is not None
    leads = f.parts.rest.value > f.parts.start.value
    return max(of_part(f, f.parts.rest), on_validation(f) if leads else NONE)


def on_validation(f: Facts) -> Severity:
    """What validation data lose and recalibrated statistics of training data give back: that is no shift, but a lag."""
    renewed = f.renewed_validation_gap
    return of_gap(f.validation_gap) if renewed.known and not of_gap(renewed) > INFO else NONE


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


def standing_since(of: Callable[[Facts], Mask]) -> Callable[[Facts], int | None]:
    """The first record after which none of these layers was updated."""

    def since(f: Facts) -> int | None:
        updates = np.nan_to_num(f.history.row("updates")[:, of(f)])
        made = np.flatnonzero((updates[1:] != updates[:-1]).any(1))
        return int(f.history.steps[made[-1] + 1]) if len(made) else f.first_step

    return since


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
    return off | f.frozen_after_trace | f.thawed


def drift_known(f: Facts) -> bool:
    """The course of the lag is known, and not behind statistics of long ago alone."""
    return lag_known(f) and over_time(f) and bool(drifts(f).any() or not f.drifting.any())


def drifts(f: Facts) -> Mask:
    """Layers whose batch statistics move away; a lag behind those of long ago is none that inference has."""
    return f.drifting if f.evaluated else f.drifting & ~f.layers.outdated


def drift_cost(f: Facts, _where: Mask) -> Severity:
    """What newer statistics take away, and no more than the gap."""
    if f.parts is not None:
        return rest_cost(f) if f.rest_is == "drift" else NONE
    # Only what newer statistics take away is drift; without any at the present weights the pool's are too old to tell.
    told = f.present_known or not f.pool_is_old
    return max(min(of_gap(f.drift_cured), of_gap(f.gap)) if told else of_gap(f.gap), on_validation(f))


def drift_noted(f: Facts, where: Mask) -> bool:
    """Without harm it is worth a note where the batch statistics were seen to move, and dropout does not explain it."""
    if not f.evaluated:
        return True
    moving = (f.layers.drifting & (f.layers.rate > 0.0)) | f.layers.wandering
    if f.parts is None:
        return far(f, where & moving & ~f.layers.outdated)
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
        return NONE if f.parts is None or f.rest_is != kind else rest_cost(f)

    return cost


def mode_cost(f: Facts, _where: Mask) -> Severity:
    """What statistics take that were gathered with training-only layers on."""
    return NONE if f.parts is None else of_part(f, f.parts.mode)


def shifted_by_mode(f: Facts) -> Mask:
    """Layers whose statistics are those of training-only layers being on."""
    return no_layers(f) if f.parts is None else f.parts.by_mode


def fed_unseen(f: Facts) -> Mask:
    """Layers that are updated by data which the lens does not see."""
    return no_layers(f) if f.parts is None or f.rest_is != "unseen" else f.parts.fed_otherwise


def mixture_is_far(f: Facts, where: Mask) -> bool:
    """Layers that a step surely updates more often than the lens sees lag by much, whatever the loss says."""
    return f.parts is not None and far(f, where & f.parts.more_updates & f.layers.lagging)


def start_part(f: Facts) -> Gap:
    """What the initial statistics take."""
    return f.stale if f.parts is None else f.parts.start


def rest_part(f: Facts) -> Gap:
    """What statistics of the past take that are not the initial ones."""
    return f.undone("recalibrated_now") if f.parts is None else f.parts.rest


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


def low_momentum(f: Facts) -> Mask:
    """Layers of the lowest momentum, where it is very low or a higher one does better."""
    low = f.low(PASTED)
    return low if f.lowest_momentum <= PASTED or higher_helps(f) else np.zeros_like(low)


def higher_helps(f: Facts) -> bool:
    """A higher momentum, replayed, does better; where it was measured on many batches, by enough to matter."""
    if f.best_higher(PASTED) is None or f.parts is None:
        return f.best_higher(PASTED) is not None
    return of_part(f, longer_memory(f)) > INFO


def noisy(f: Facts, where: Mask) -> Mask:
    """Those of these layers whose moving statistics scatter."""
    return where & ~(f.moving_scatter < SCATTER)


def jumps(f: Facts, where: Mask) -> Severity:
    """How far inference jumps at one probe in ten, or what a longer memory gives back, where the statistics scatter."""
    if not noisy(f, where).any():
        return NONE
    lasting = of_part(f, longer_memory(f))
    if not f.jump.known:
        return lasting
    # As for stale statistics: worse than batch statistics, or, at most a warning, worse than they could be.
    told = max(min(of_gap(f.jump_over_batch), of_gap(f.jump)), min(of_gap(f.jump), WARNING))
    return max(told, lasting)


def longer_memory(f: Facts) -> Gap:
    """What the best higher momentum, replayed, takes away from the inference loss at the end.

    Where all replays still hold the start, statistics of many batches stand in for a memory of little but the last one.
    """
    if f.parts is None:
        return UNKNOWN
    best = f.best_higher(PASTED)
    if best is not None:
        return f.undone(replay_row(best))
    return f.stale if f.lowest_momentum <= PASTED and not f.replays_forget(PASTED) else UNKNOWN


def pasted(f: Facts, _where: Mask) -> bool:
    """The momentum is so low that it is seldom meant, and it is not the one that follows drift best."""
    follows = bool((f.layers.drifting | f.layers.wandering).any())
    best_as_it_is = bool(f.replayed) and f.best_higher(PASTED) is None and follows
    return f.lowest_momentum <= PASTED and not best_as_it_is


def pasted_layers(f: Facts, where: Mask, severity: Severity) -> Mask:
    """The layers that scatter, or for a note those of very low momentum."""
    return noisy(f, where) if severity > INFO else f.layers.updating & (f.layers.beta <= PASTED)


def gap_since(f: Facts) -> int | None:
    """Step from which the gap has been a warning at every probe."""
    with np.errstate(invalid="ignore"):
        gap = (f.history.loss("inference") - f.history.loss("batch")).astype(np.float64)
    fine = np.flatnonzero(gap < f.warning_loss)
    start = int(fine[-1]) + 1 if len(fine) else 0
    later = [int(s) for s, g in zip(f.history.loss_steps[start:], gap[start:], strict=True) if not math.isnan(g)]
    return later[0] if later else None
