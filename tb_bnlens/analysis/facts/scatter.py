"""How single batches differ: calls, last batches, noise, and a momentum that follows it."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis import replays, robust
from tb_bnlens.analysis.arrival import NOISE_SIGMAS
from tb_bnlens.analysis.facts.still import StillFacts
from tb_bnlens.analysis.fixed import best_average
from tb_bnlens.analysis.loss_gap import CORROBORATION, NOTE_HARM, Gap
from tb_bnlens.analysis.measured import UNKNOWN
from tb_bnlens.analysis.noise import noise_floor
from tb_bnlens.metadata import TIME_DISTRIBUTED

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class ScatterFacts(StillFacts):
    """What single batches do to statistics and losses."""

    # --- batches ---

    @cached_property
    def shared(self) -> Mask:
        """Layers that are called more than once in a step, where the calls were compared."""
        return ~np.isnan(self.layers.alternation)

    @cached_property
    def call_noise(self) -> Array:
        """Largest distance between two calls on data of one kind, from batch noise, [L].

        A single batch of n samples reads a distance of at most ``sqrt(1.5/n)``, the difference of two ``sqrt(3/n)``.
        Each call may be on the whole batch or on its own part of it, as in ghost batch normalization.
        """
        layers = self.manifest.layers
        parts = [1 if TIME_DISTRIBUTED in layer.kind else max(layer.calls, 1) for layer in layers]
        return np.sqrt(3.0 * np.array(parts, np.float64) / (self.manifest.batch_size or 8))

    @cached_property
    def spread_over_random(self) -> float:
        """Largest spread of a layer's batch means, as a multiple of the most that random samples give."""
        return robust.largest(self.batches.overall)

    @cached_property
    def last_batch(self) -> Array:
        """Distance of the last, short batch of an epoch: the median of the last epochs', the lower one of two.

        One may be odd by chance; what is short is short in each epoch.
        """
        course = self.history.row("epoch_end_distance")
        known = [column[~np.isnan(column)][-CORROBORATION:] for column in course.T]
        return np.array([np.sort(x)[(len(x) - 1) // 2] if len(x) else np.nan for x in known])

    @cached_property
    def last_batch_left(self) -> Array:
        """What it leaves in the moving statistics."""
        return np.asarray((1.0 - self.layers.beta) * self.last_batch)

    @cached_property
    def usual_batch(self) -> Array:
        """Distance of a usual batch: median over the second half of the record."""
        late = self.history.row("since_min")[len(self.history.steps) // 2 :]
        return np.array([robust.median(column) for column in late.T])

    @cached_property
    def loss_after_last_batch(self) -> float:
        """Inference minus batch statistics at the end, right after the short batch, over the usual difference."""
        course = self.losses.course
        difference = course.get("inference", np.empty(0)) - course.get("batch", np.empty(0))
        if len(difference) < 3 or self.losses.step != self.history.last_step:
            return math.nan
        return float(difference[-1]) - robust.median(difference[:-1])

    # --- momentum too low ---

    @cached_property
    def lowest_momentum(self) -> float:
        """Of the updating layers, 1 without any."""
        return float(np.min(self.layers.beta[self.layers.updating], initial=1.0))

    def low(self, limit: float) -> Mask:
        """Updating layers of the lowest momentum, and those up to the limit."""
        return np.asarray(self.layers.updating & (self.layers.beta <= max(limit, self.lowest_momentum + 1e-6)))

    def best_higher(self, limit: float) -> float | None:
        """A replayed momentum above those layers' that does as well as the best, None where none beats inference.

        The nearest of those, a customary one where there is one. What still holds the start is no average of more
        batches.
        """
        higher, top = {m: self.replayed[m] for m in self.replays_forget(limit)}, self._top(limit)
        if not higher:
            return None
        least, used = min(higher.values()), self._as_used(top)
        good = [m for m, x in higher.items() if x < used and self.losses.harm(x - least) < NOTE_HARM]
        return min(replays.customary(good) or good, default=None)

    def replays_forget(self, limit: float) -> list[float]:
        """Replayed momentums above those layers' that hold nothing of the start any more."""
        low = self.low(limit)
        if not low.any():
            return []
        updates = robust.median(self.layers.updates[low])
        forgets = [m for m in self.replayed if not m**updates > self.layers.tolerance]
        return list(replays.longer(forgets, self._top(limit)))

    def _top(self, limit: float) -> float:
        """Greatest momentum of those layers."""
        return float(np.max(self.layers.beta[self.low(limit)], initial=0.0))

    def _as_used(self, momentum: float) -> float:
        """What a replay at a higher momentum is held against: inference, or the replay nearest to the one in use.

        A replay gives every layer one momentum. Where some have a higher one, it changes those as well.
        """
        if self.longest_memory <= momentum + 1e-6:
            return self.now("inference")
        nearest = min(self.replayed, key=lambda m: abs(math.log1p(-m) - math.log1p(-min(momentum, 0.999))))
        return min(self.now("inference"), self.replayed[nearest])

    @staticmethod
    def mirrored_momentum(momentum: float) -> float | None:
        """What somebody who pasted PyTorch's convention meant, None where that is no higher."""
        return 1.0 - momentum if 0.0 < momentum < 1.0 - momentum else None

    @cached_property
    def moving_scatter(self) -> Array:
        """Scatter of the moving statistics around their mean, as a distance, from batch noise."""
        return noise_floor(self.layers.scatter, self.layers.beta)

    @cached_property
    def jump(self) -> Gap:
        """Inference minus recalibrated that one probe in ten exceeds."""
        return self.losses.jump("inference", "recalibrated")

    @cached_property
    def jump_over_batch(self) -> Gap:
        """Inference minus batch statistics that one probe in ten exceeds."""
        return self.losses.jump("inference", "batch")

    # --- batch noise ---

    @cached_property
    def best_fixed(self) -> Array:
        """Loss of the fixed statistics that do best over the window, [<= WINDOW]."""
        return best_average(self.losses, ("recalibrated", "recalibrated_long", "recalibrated_now"))

    @cached_property
    def noise(self) -> Gap:
        """What no averaging takes away: the best fixed statistics minus batch statistics."""
        batch = self.losses.window.get("batch", np.empty(0))
        if len(self.best_fixed) != len(batch) or not len(batch):
            return UNKNOWN
        return self.losses.judge_window(self.best_fixed - batch)

    @cached_property
    def largest_scatter(self) -> float:
        """Distance of a single batch from the mean of all, in the noisiest layer."""
        return robust.largest(self.layers.scatter)

    # --- replicas ---

    @cached_property
    def replica_noise(self) -> Array:
        """Spread over replicas that batch noise explains.

        One sample a channel is the least there can be, which bounds the noise where it was not measured.
        """
        m, layers = self.manifest, self.layers
        share = (m.batch_size or m.replicas) / m.replicas
        single = np.fmax(layers.noise_mean * math.sqrt(m.replicas), 1.0 / math.sqrt(max(share, 1.0)))
        return np.asarray(NOISE_SIGMAS * noise_floor(np.where(np.isnan(single), 1.0, single), layers.beta))
