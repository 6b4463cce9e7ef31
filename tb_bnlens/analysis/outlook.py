"""Will it converge: the steps that the run still needs, against the steps that it still has."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.advice import WhatIf, converging_momentum, round_down, tracking_momentum, what_if
from tb_bnlens.analysis.convergence import steps_to_converge
from tb_bnlens.analysis.forecast import updates_to_loss
from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.analysis.loss_gap import NOTE_HARM, WARNING_HARM, Losses
from tb_bnlens.analysis.replays import preferred, shorter
from tb_bnlens.history import Manifest
from tb_bnlens.metadata import CHECKPOINTS

Mask = NDArray[np.bool_]
Interval = tuple[float, float]

USABLE_SHARE = 0.25
"""An advised momentum has to have converged after this share of the run, so that validation during training can be
trusted for the rest of it."""
COMMON = 0.9
"""PyTorch's default: smaller ones average few batches, which a replay has to show to be better."""
UNPLANNED_STEPS = 1_000
"""A run of unknown length is expected to go on for as long as it has had, and to have this many steps at least.

Every network lags in its first steps, so an alarm there says nothing."""


@dataclass(frozen=True)
class Outlook:
    """The run's steps to converge. A step is an optimizer step."""

    last_step: int
    remaining: int
    """Steps that are still planned, or expected where there is no plan; 0 when the run is over."""
    loss_steps: float
    """Steps until the inference loss is within tolerance, from the forecast; inf beyond its last point, NaN unknown."""
    layer_steps: float
    """Steps until 95% of the channels of every layer that the initial values still affect are within tolerance."""
    loss_interval: Interval
    """80% interval of ``loss_steps``."""
    layer_interval: Interval
    """80% interval of ``layer_steps``: that of the slowest layer."""
    suffers: bool = False
    """Inference loss was measured to suffer from the start."""
    planned: bool = True
    """Whether the length of the run is known."""

    @property
    def by_loss(self) -> bool:
        """Whether the forecast of the loss tells the steps."""
        # A forecast that is there at once, though the loss suffers, tends to something else than lagging layers do.
        return math.isfinite(self.loss_steps) and (self.loss_steps > 0 or not self.suffers)

    @property
    def steps(self) -> float:
        """In terms of the loss where the forecast gets there, else by the statistics."""
        return self.loss_steps if self.by_loss else self.layer_steps

    @property
    def interval(self) -> Interval:
        """80% interval of ``steps``; (NaN, NaN) where it is not reliable."""
        return self.loss_interval if self.by_loss else self.layer_interval

    @property
    def will_converge(self) -> bool:
        """Whether the steps that remain are enough."""
        return 0 < self.remaining and self.steps <= self.remaining


def outlook(
    manifest: Manifest,
    losses: Losses,
    layers: LayerTable,
    last_step: int | None,
    over: bool = False,
    starting: Mask | None = None,
    suffers: bool = False,
) -> Outlook:
    """Read the outlook from what the last record and the last probe say.

    Args:
        manifest: of the run.
        losses: of its probes.
        layers: at the end of the record.
        last_step: of the record.
        over: training has ended.
        starting: layers that lag because they hold their start, [L]; ``layers.starting`` where it is not given.
        suffers: inference loss was measured to suffer from that.
    """
    step = last_step or 0
    over = over or bool(manifest.ended) or manifest.source == CHECKPOINTS
    if over:
        remaining = 0  # whatever was planned
    elif manifest.planned_steps is not None:
        remaining = max(0, manifest.planned_steps - step)
    else:
        remaining = max(step, UNPLANNED_STEPS - step)
    starting = layers.starting if starting is None else starting
    layer_steps, *ends = (
        _slowest(updates[starting] / layers.updates_per_step[starting])
        for updates in (layers.converge_updates, layers.converge_low, layers.converge_high)
    )
    updating = layers.updates_per_step[layers.updating]
    per_step = float(np.median(updating)) if len(updating) else 1.0
    loss_steps = _loss_steps(losses, manifest.tolerance) / per_step
    return Outlook(
        last_step=step,
        remaining=remaining,
        loss_steps=loss_steps,
        layer_steps=0.0 if math.isnan(layer_steps) else layer_steps,
        loss_interval=_loss_interval(layers, loss_steps, per_step),
        layer_interval=(ends[0], ends[1]),
        suffers=suffers,
        planned=over or manifest.planned_steps is not None,
    )


def _slowest(steps: NDArray[np.float64]) -> float:
    known = steps[~np.isnan(steps)]
    return float(known.max()) if len(known) else math.nan


def _loss_interval(layers: LayerTable, loss_steps: float, per_step: float) -> Interval:
    """80% interval of the steps that the forecast of the loss gives; (NaN, NaN) where no layer has an interval.

    The loss waits for the slowest layers, which take at least half of the steps that the slowest takes. The
    forecast keeps the weights still, so it is widened as theirs are on the median, and to the median of their own ends.
    """
    known = layers.updating & (layers.error > layers.tolerance) & ~np.isnan(layers.converge_low)
    still = steps_to_converge(layers.error, layers.beta, layers.tolerance)
    known &= np.isfinite(still)
    if not known.any():
        return math.nan, math.nan
    slow = known & (still >= 0.5 * still[known].max())

    def median(values: NDArray[np.float64]) -> float:
        return float(np.median(values[slow]))

    with np.errstate(invalid="ignore"):  # no steps of a layer that may never arrive
        widened = [
            loss_steps * factor
            for factor in (median(layers.converge_low / still), median(layers.converge_high / still))
        ]
    own = [median(ends) / per_step for ends in (layers.converge_low, layers.converge_high)]
    return float(np.nanmin([loss_steps, widened[0], own[0]])), float(np.nanmax([loss_steps, widened[1], own[1]]))


def _loss_steps(losses: Losses, tolerance: float) -> float:
    goal = losses.forecast_limit
    if not losses.forecast or not math.isfinite(goal):
        return math.nan
    updates, values = zip(*losses.forecast, strict=True)
    # The forecast tends to the pool's own loss, so that is where it is to be within tolerance of.
    target = goal + tolerance * losses.level
    return updates_to_loss(updates, values, target, goal)


def following_momentum(layers: LayerTable) -> float:
    """Momentum that best follows drifting statistics through batch noise, 1 where nothing drifts.

    One momentum serves all layers, so the sums of the squared lags and of the squared noise are weighed:
    ``advice.tracking_momentum`` of the root mean squares over the updating layers where both are known.
    """
    known = layers.updating & ~np.isnan(layers.rate) & ~np.isnan(layers.noise_mean)
    if not known.any():
        return 1.0
    rate, noise = (float(np.sqrt(np.mean(x[known] ** 2))) for x in (layers.rate, layers.noise_mean))
    return float(tracking_momentum(rate, noise))


def _first_error(layers: LayerTable, starting: Mask) -> NDArray[np.float64]:
    """Relative error at the start of layers that the initial values still affect, one for each of them."""
    with np.errstate(all="ignore"):
        return np.fmax(layers.start_error[starting] / layers.memory[starting], layers.error[starting])


def price(momentum: float, layers: LayerTable, starting: Mask) -> WhatIf:
    """What a momentum would cost the median layer that the initial values still affect, from the start of the run."""
    error, rate, noise = (
        robust.median(x) for x in (_first_error(layers, starting), layers.rate[starting], layers.noise_mean[starting])
    )
    return what_if(momentum, error, rate, noise, layers.tolerance)


def usable_momentum(layers: LayerTable, steps: int, starting: Mask, share: float = USABLE_SHARE) -> float:
    """Largest momentum in common use that forgets the start in the first ``share`` of so many steps."""
    beta = 1.0
    if starting.any():
        error = _first_error(layers, starting)
        updates = share * max(steps, 1) * layers.updates_per_step[starting]
        beta = 1.0 - robust.largest(1.0 - converging_momentum(error, updates, layers.tolerance))
    used = float(layers.beta[layers.updating].max(initial=0.0))
    return round_down(min(beta, used - 1e-6 if used else 1.0))


def untried_momentum(layers: LayerTable, steps: int) -> float:
    """Momentum to try in a run of this many steps where no replay tells: ``COMMON`` if it forgets the start in time."""
    early, in_the_end = (usable_momentum(layers, steps, layers.starting, share) for share in (USABLE_SHARE, 1.0))
    return max(early, min(in_the_end, COMMON))


def advised_momentum(layers: LayerTable, losses: Losses, steps: int) -> float | None:
    """Momentum to try in a run of this many steps, told by single probes: one in common use.

    A replay has the lag and the noise of that momentum in it. Of those whose inference loss is no warning it is one
    (``replays.preferred``) that forgets the start within the run and does as well as the best, or that forgets it early
    (``usable_momentum``). Where none was measured, it is ``untried_momentum``, capped by ``following_momentum`` but not
    below ``COMMON``. None when every replay that was measured is a warning.
    """
    candidate = usable_momentum(layers, steps, layers.starting)
    in_the_end = usable_momentum(layers, steps, layers.starting, 1.0)
    batch = losses.typical.get("batch", math.nan)
    used = float(layers.beta[layers.updating].max(initial=0.0))
    lower = {m: losses.replayed[m] for m in shorter(losses.replayed, used)}
    if not lower or not math.isfinite(batch):
        return round_down(min(untried_momentum(layers, steps), max(following_momentum(layers), COMMON)))
    good = {m: loss for m, loss in lower.items() if m <= in_the_end and losses.harm(loss - batch) < WARNING_HARM}
    best = min(good.values(), default=math.nan)
    as_good = [m for m, loss in good.items() if m <= candidate or losses.harm(loss - best) < NOTE_HARM]
    return preferred(as_good)
