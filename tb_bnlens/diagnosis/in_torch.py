"""What the causes ask of the facts that PyTorch alone has."""

from __future__ import annotations

import math

import numpy as np

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.lag import LARGE_DISTANCE, latest
from tb_bnlens.diagnosis import compositions as of
from tb_bnlens.diagnosis import conditions as on
from tb_bnlens.diagnosis.cause import Mask
from tb_bnlens.diagnosis.severity import Severity

NONE, INFO, WARNING, ERROR = Severity


# --- no statistics -------------------------------------------------------------------------------------


def loss_alone(f: Facts, where: Mask) -> Severity:
    """What single rows lose, where that was measured; a warning where PyTorch refuses to predict one."""
    if refuses_single_rows(f):
        return WARNING
    return of.loss_alone(f, where) if of.measured(f) else NONE


def refuses_single_rows(f: Facts) -> bool:
    """Whether a single row raises an error: one value a channel has no variance."""
    reason = "" if f.evidence is None else f.evidence.not_evaluated.get("one_at_a_time", "")
    return "more than 1 value per channel" in reason


# --- frozen weights ------------------------------------------------------------------------------------


def weights_held(f: Facts) -> bool:
    """Some layer's weights are not trained."""
    return f.in_torch and any(not layer.trainable for layer in f.manifest.layers)


def moved_since_start(f: Facts, where: Mask) -> float:
    """How far the statistics of these layers have moved since the record began, at most, in standard deviations."""
    return robust.largest(latest(f.history, "start_distance")[where])


def moved_far(f: Facts, where: Mask) -> Severity:
    """A warning where the layers compute something else than when training began: nobody means that of frozen ones."""
    return WARNING if moved_since_start(f, where) >= LARGE_DISTANCE else NONE


# --- momentum ------------------------------------------------------------------------------------------


def conventions_apply(f: Facts) -> bool:
    """Some layer of a PyTorch model is updated with a momentum."""
    return f.in_torch and bool((f.layers.updating & ~f.cumulative).any())


def kept_for_replaced(f: Facts) -> Mask:
    """Layers whose momentum makes sense as the share that is kept, and is the share that is replaced."""
    beta = f.layers.beta
    return np.asarray(f.layers.updating & ~f.cumulative & (beta > 0.0) & (beta <= on.PASTED) & (1.0 - beta > beta))


def mostly_cumulative(f: Facts, where: Mask) -> bool:
    """Most of these layers have no momentum."""
    shown = where & f.cumulative if where.ndim else f.cumulative
    return bool(2 * shown.sum() >= max(int(where.sum()) if where.ndim else 1, 1))


def old_batches_count(f: Facts) -> Mask:
    """Layers without a momentum that lag: batches of old weights count as much as those of new ones."""
    return np.asarray(f.cumulative & f.layers.lagging)


def cumulative_cost(f: Facts, where: Mask) -> Severity:
    """What statistics of the present weights take away."""
    return on.staleness(f, where) if f.parts is None else on.of_part(f, f.stale)


def half_life(f: Facts) -> float:
    """Updates until half of what is in the statistics now is left, which is as many as there were."""
    return robust.median(f.layers.updates[f.cumulative]) if f.cumulative.any() else math.nan
