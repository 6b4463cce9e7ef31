"""Statistics that lag: the start that is left in them, and batches that move away."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis import advice, drift, effective, outlook, replays, robust
from tb_bnlens.analysis.facts.losses import LossFacts
from tb_bnlens.analysis.fixed import best_average
from tb_bnlens.analysis.loss_gap import NOTE_HARM, WARNING_HARM, Gap
from tb_bnlens.metadata import REPLAY_MOMENTUMS, EventKind

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

UPDATED = 0.9
"""Share of the steps of a run: layers that fewer steps updated were frozen for a while."""


class StaleFacts(LossFacts):
    """What the moving statistics lag behind, and the momentum that would not."""

    @cached_property
    def outlook(self) -> outlook.Outlook:
        """Steps that the run needs and steps that it has."""
        suffers = self.parts is not None and self.parts.start.at_least(NOTE_HARM)
        made = self.shown_steps if self.checked and not self.last_step else self.history.last_step
        return outlook.outlook(
            self.manifest, self.losses, self.layers, made, self.over or self.checked, self.starting, suffers
        )

    @property
    def shown_steps(self) -> int:
        """Steps that have left so much of the initial statistics, in the median layer; 0 where that is not known."""
        layers = self.layers
        with np.errstate(all="ignore"):
            steps = np.log(layers.memory) / np.log(layers.beta) / layers.updates_per_step
        found = robust.median(steps[self.starting])
        return round(found) if math.isfinite(found) else 0

    # --- the start ---

    @cached_property
    def starting(self) -> Mask:
        """Layers whose lag is explained by their initial statistics."""
        return self.layers.starting if self.parts is None else self.parts.from_start

    @cached_property
    def start_is_missing(self) -> bool:
        """Whether layers that hold their start began as trained ones with the statistics of new ones."""
        begun = [e.layers for e in self.manifest.events if e.kind == EventKind.NEW_STATISTICS]
        return any(self.starting[i] for layers in begun for i in layers if i < len(self.starting))

    @cached_property
    def starting_count(self) -> int:
        """How many those are."""
        return int(self.starting.sum())

    @cached_property
    def drift_leads(self) -> bool:
        """Whether more lagging layers drift than hold their initial statistics."""
        return self.starting_count < int(self.layers.drifting.sum())

    @cached_property
    def start_leads(self) -> bool:
        """Whether more layers hold their initial statistics than drift."""
        return self.starting_count > int(self.drifting.sum())

    @cached_property
    def start_steps(self) -> float:
        """Steps in which the median layer that holds its start was updated; fewer than the run's where it was frozen.

        What was before the record counts as such.
        """
        made = robust.median((self.layers.updates / self.layers.updates_per_step)[self.starting])
        before = self.first_step or 0
        return float(np.fmin(before + made, self.outlook.last_step))

    @property
    def start_was_frozen(self) -> bool:
        """Whether layers that hold their start were updated in clearly fewer steps than the run has."""
        return not self.checked and self.start_steps < UPDATED * self.outlook.last_step

    @cached_property
    def needed_steps(self) -> float:
        """Steps that the initial statistics need to be forgotten, from the first update on; inf is never."""
        return self.start_steps + self.outlook.steps

    @cached_property
    def start_updates(self) -> float:
        """Updates that the start still needs, in the median layer that holds it."""
        return self.outlook.steps * robust.median(self.layers.updates_per_step[self.starting])

    @cached_property
    def start_interval(self) -> tuple[float, float]:
        """80% interval of ``start_updates``."""
        per_step = robust.median(self.layers.updates_per_step[self.starting])
        low, high = self.outlook.interval
        return low * per_step, high * per_step

    @cached_property
    def needed_interval(self) -> tuple[float, float]:
        """80% interval of ``needed_steps``."""
        low, high = self.outlook.interval
        return self.start_steps + low, self.start_steps + high

    @cached_property
    def advised_momentum(self) -> float | None:
        """Momentum to try in a run of this length, None where no replay serves."""
        run = self.outlook.last_step + self.outlook.remaining
        if self.measured is not None and self.measured.replayed:
            untried = outlook.untried_momentum(self.layers, run)
            forgets = outlook.usable_momentum(self.layers, run, self.starting, 1.0)
            return replays.advised(self.measured, self.longest_memory, untried, forgets)
        return outlook.advised_momentum(self.layers, self.losses, run)

    @cached_property
    def longest_memory(self) -> float:
        """Greatest momentum of the updating layers."""
        return float(np.max(self.layers.beta[self.layers.updating], initial=0.0))

    @cached_property
    def advised_price(self) -> advice.WhatIf | None:
        """What the advised momentum would cost the median layer."""
        return (
            None if self.advised_momentum is None else outlook.price(self.advised_momentum, self.layers, self.starting)
        )

    @cached_property
    def advised_loss(self) -> float:
        """Inference loss replayed at the advised momentum."""
        return math.nan if self.advised_momentum is None else self.replayed.get(self.advised_momentum, math.nan)

    @cached_property
    def best_replay(self) -> float | None:
        """The replayed momentum below the one in use that does better than the advised one by what is worth a note."""
        lower = replays.shorter(self.replayed, self.longest_memory)
        best = min(lower, key=lambda m: self.replayed[m], default=None)
        if best is None or not self.losses.harm(self.advised_loss - self.replayed[best]) >= NOTE_HARM:
            return None
        return best

    @cached_property
    def shrink(self) -> float:
        """Error that each update leaves, as a factor, over the second half of the record: the median starting layer."""
        half = len(self.history.steps) // 2
        if half < 1:
            return math.nan
        error, updates = (self.history.row(name)[half:, self.starting] for name in ("error_p50", "updates"))
        return robust.median(effective.shrink_per_update(error, updates))

    # --- drift ---

    @cached_property
    def pool_is_old(self) -> bool:
        """Whether the statistics move by more than a batch scatters within the pool that recalibration uses."""
        return bool(2 * self.layers.wandering.sum() > self.layers.updating.sum())

    @cached_property
    def drifting(self) -> Mask:
        """Layers whose batch statistics move away from the moving ones."""
        moving = self.layers.drifting | self.layers.wandering if self.pool_is_old else self.layers.drifting
        if self.parts is None:
            return moving
        return self.parts.drifting if self.rest_is == "drift" else moving & self.parts.drifting

    @cached_property
    def present_known(self) -> bool:
        """Whether statistics at the present weights were measured; they have no drift in them."""
        return self.parts is not None or self.losses.gap("recalibrated_now", "batch").known

    @cached_property
    def newest(self) -> Array:
        """Loss of the newest statistics there are over the window, [<= WINDOW].

        Without any at the present weights, the shortest averages have least drift in them.
        """
        where = self.drifting
        shorter: list[float] = []
        if not self.present_known and where.any():
            used = float(np.max(self.layers.beta[where]))
            shorter = replays.shorter(REPLAY_MOMENTUMS, used)
        return best_average(self.losses, ("recalibrated", "recalibrated_now"), shorter)

    @cached_property
    def newest_paired(self) -> bool:
        """Whether the newest statistics can be held against inference and batch statistics."""
        return len(self.losses.window.get("batch", np.empty(0))) > 0 and len(self.newest) > 0

    @cached_property
    def drift_cured(self) -> Gap:
        """What the newest statistics take away from the inference loss."""
        if self.parts is not None:
            return self.parts.rest
        return (
            self.losses.judge_window(self.losses.window["inference"] - self.newest) if self.newest_paired else self.gap
        )

    @cached_property
    def drift_left(self) -> Gap:
        """What the newest statistics leave over batch statistics."""
        if self.measured is not None and self.parts is not None:
            return self.measured.gap("recalibrated", self.measured.rival)
        return self.losses.judge_window(self.newest - self.losses.window["batch"]) if self.newest_paired else self.gap

    @cached_property
    def drift_rate(self) -> float:
        """Drift an update in batch standard deviations, of the median drifting layer."""
        return robust.median(self.layers.rate[self.drifting])

    @cached_property
    def significant_shift(self) -> Array:
        """Shift between pools, in multiples of its noise, that is no accident."""
        return drift.significance_limit(self.layers.channels)

    @cached_property
    def followed(self) -> float | None:
        """A replayed momentum below that of the drifting layers that follows closely enough, None without."""
        found = self._followed
        used = self.layers.beta[self.drifting]
        return found if found is not None and (not len(used) or found < float(np.min(used)) - 1e-6) else None

    @property
    def _followed(self) -> float | None:
        if self.measured is not None and self.measured.replayed:
            return replays.advised(self.measured, self.longest_memory)
        batch = self.now("batch")
        good = [m for m, v in self.replayed.items() if self.losses.harm(v - batch) < WARNING_HARM]
        return replays.preferred(good)

    @cached_property
    def following_momentum(self) -> float:
        """Momentum of least lag and noise at the measured drift; 1 where nothing drifts."""
        return outlook.following_momentum(self.layers)

    @cached_property
    def scheduled(self) -> bool:
        """Whether the learning rate changed during the run."""
        rates = self.history.loss("learning_rate")
        return len(np.unique(rates[~np.isnan(rates)])) > 1

    @cached_property
    def advised_learning_rate(self) -> float | None:
        """Learning rate at which the lag would be within tolerance, None where it is not known."""
        where = self.drifting
        if not (self.drift_rate > 0.0 or self.pool_is_old):
            # The lag is in proportion to the rate where the batch statistics were seen to move.
            return None
        lag = robust.median(self.layers.error[where])
        if self.pool_is_old:
            lag = max(lag, robust.median(self.layers.shift[where]))
        return advice.lower_learning_rate(self.now("learning_rate"), self.layers.tolerance, lag)
