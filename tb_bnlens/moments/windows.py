"""What the windows between snapshots add up to: pools, shadow averages, noise, drift inputs.

Everything is [C_total] in the order of ``Segments``; what is kept from one window to the next is float32, a
few dozen copies of the BatchNorm statistics in all.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tb_bnlens.metadata import REPLAY_MOMENTUMS
from tb_bnlens.moments.decay import Decay
from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.recovery import Snapshot, WindowRecovery
from tb_bnlens.moments.segments import Segments

Array = NDArray[np.floating[Any]]

SHORT_UPDATES = 20
"""Updates in the short pool: enough to average the noise of single batches down by sqrt(20), and few enough to
follow weights that move."""
LONG_UPDATES = 200
"""Updates in the long pool: ten times the short one, so that drift shows between the two."""
CHUNKS = 4
"""Each pool is a ring of this many sums, so that it forgets without keeping every window."""
COARSE = 0.5
"""A window longer than this share of a momentum's memory 1/(1-beta) smears its replay."""
SMEARED = 0.1
"""No replay is given where smeared windows hold more than this share of its weight."""
LONGEST = 1.01
"""A window longer than this many memories ``1/(1-momentum)`` of its layer, and rounding, is not pooled."""
UNKNOWN = Moments(np.array(np.nan), np.array(np.nan))
NOISE_MEMORY = 0.97
"""Decay of the noise estimate per single-update window: some 30 batches."""


@dataclass
class Pooled:
    """The statistics of some windows, weighted by their updates."""

    moments: Moments
    """In float32."""
    updates: float
    batches: float
    """Effective number of independent batches: (sum w)^2 / sum w^2 of the window weights."""
    step: float
    """Mean step of the updates in it."""

    def merged(self, newer: Pooled) -> Pooled:
        """These and newer ones."""
        # A window without updates of a layer is NaN there and must not erase what is known.
        weight = newer.updates / (self.updates + newer.updates)

        def mix(x: Array, y: Array) -> Array:
            mixed = x + np.float32(weight) * (y - x)
            return np.where(np.isnan(y), x, np.where(np.isnan(x), y, mixed))

        a, b = self.moments, newer.moments
        return Pooled(
            Moments(mix(a.mean, b.mean), mix(a.variance, b.variance)),
            self.updates + newer.updates,
            self.batches + newer.batches,
            self.step + weight * (newer.step - self.step),
        )


@dataclass
class Pool:
    """Update-weighted mean of the newest windows."""

    target: int
    chunks: deque[Pooled] = field(default_factory=lambda: deque(maxlen=CHUNKS))

    def add(self, window: Pooled) -> bool:
        """Put one window in. Returns True where it began a new sum of the ring."""
        if not self.chunks or self.chunks[-1].updates * CHUNKS >= self.target:
            self.chunks.append(window)
            return True
        self.chunks[-1] = self.chunks[-1].merged(window)
        return False

    def merged(self) -> Pooled | None:
        """The newest sums that make up the target, and no older ones; None while there is nothing."""
        total: Pooled | None = None
        for chunk in reversed(self.chunks):
            if total is not None and total.updates >= self.target:
                break
            total = chunk if total is None else chunk.merged(total)
        return total

    def oldest(self) -> Pooled | None:
        """The older half of a full ring, to compare the newest with; None until it is full."""
        return self.chunks[0].merged(self.chunks[1]) if len(self.chunks) == CHUNKS else None


class Windows:
    """The running state over all windows since the record began."""

    def __init__(
        self,
        start: Snapshot,
        step: int,
        recovery: WindowRecovery,
        segments: Segments,
        longest: float = LONGEST,
    ):
        self._recovery, self._segments, self._longest = recovery, segments, longest
        self.start = start
        self.last, self.step = start, step
        """The newest snapshot, and the step that it was taken at."""
        self.updates = np.zeros(len(segments))
        # What was left of the start, and the updates so far, when a momentum was set last.
        self._left: Array = np.ones(len(segments))
        self._updates_then: Array = np.zeros(len(segments))
        self.short, self.long = Pool(SHORT_UPDATES), Pool(LONG_UPDATES)
        begun = recovery.moving(start).single()
        self._shadows = Moments(*(np.tile(part, (len(REPLAY_MOMENTUMS), 1)) for part in (begun.mean, begun.variance)))
        self._smeared = np.zeros(len(REPLAY_MOMENTUMS))
        self._single: Moments | None = None
        nothing = np.zeros(len(start.mean), np.float32)
        self._noise = Moments(nothing, nothing.copy())
        self._noise_weight = 0.0
        self.noise_updates = 0
        self._lags: deque[Array] = deque(maxlen=CHUNKS + 1)
        self.decay = Decay(segments)
        """How fast the moving statistics are seen to forget."""
        self.since: list[tuple[int, Array]] = []
        self.window_nonfinite = np.zeros(len(segments))
        self.epoch_end: Array | None = None
        self._recorded = False

    def add(self, snapshot: Snapshot, step: int, updates: Array, epoch_end: bool = False) -> None:
        """Take in the snapshot that came ``updates`` [L] BatchNorm updates after the last one.

        Args:
            snapshot: the moving statistics now.
            step: the step of the training loop now.
            updates: updates of each layer since the last snapshot, NaN where they cannot be counted.
            epoch_end: the window holds the last batch of an epoch and nothing else.
        """
        if self._recorded:
            self._clear_since()
        self.updates += updates
        if not np.any(updates > 0):
            # Nothing moved: the next window begins here.
            self.last, self.step = snapshot, step
            return
        if step - self.step == 1:
            self.decay.add(self.last, snapshot)
        window = self._recovery.recover(self.last, snapshot, updates)
        # "Did the batches carry something non-finite" can only be asked of layers that were finite before.
        poisoned = np.isfinite(self.last.mean + self.last.spread) & ~np.isfinite(snapshot.mean + snapshot.spread)
        self.window_nonfinite += self._segments.count(poisoned)
        apart = self._segments.rms(window.distance(self._recovery.moving(self.last), self._recovery.epsilon))
        self.since.append((step, apart))
        if epoch_end:
            self.epoch_end = apart
        k = _median(updates[updates > 0])
        single = k == 1.0 and step - self.step == 1
        self._add_noise(window, single)
        beta = _median(self._recovery.beta)
        batches = _effective_batches(k, beta)
        middle = step - min(k, 1 / max(1 - beta, 1e-9)) / 2
        # A short last batch is not like the others: it counts where it did its harm, not in the pools.
        # A window longer than the memory recovers the moving average itself, so their agreement says nothing.
        within = updates * (1 - self._recovery.beta) <= self._longest
        if not epoch_end and within.any():
            pooled_of = window if within.all() else window.where(self._segments.per_channel(within) > 0, UNKNOWN)
            known = Pooled(pooled_of.single(), k, batches, middle)
            if self.short.add(known):
                pooled = self.short.merged()
                assert pooled is not None
                self._lags.append(pooled.moments.mean - snapshot.mean)
            self.long.add(known)
        self._advance_shadows(window, updates, k)
        self.last, self.step = snapshot, step

    def start_left(self) -> Array:
        """Share of the start that is left in the moving statistics, [L]."""
        return np.asarray(self._left * self._recovery.weights(self.updates - self._updates_then, self.last.counts)[0])

    def set_momentums(self, beta: ArrayLike, gain: ArrayLike, snapshot: Snapshot, step: int, updates: Array) -> None:
        """Go on with other momentum values, which were set at some time during the last updates.

        What batches led to these statistics cannot be recovered then. Half of the updates are taken to be of either.

        Args:
            beta: from now on, see ``WindowRecovery.set_momentums``.
            gain: likewise.
            snapshot: the moving statistics now.
            step: the step of the training loop now.
            updates: of each layer since the last snapshot, [L].
        """
        with np.errstate(invalid="ignore"):
            self.updates += 0.5 * updates
            self._left, self._updates_then = self.start_left(), np.array(self.updates)
            self._recovery.set_momentums(beta, gain)
            self.updates += 0.5 * updates
        self.restart(snapshot)
        self.step = step

    def restart(self, snapshot: Snapshot) -> None:
        """Go on from these statistics, which the updates of training steps have not led to."""
        self.last, self._single = snapshot, None

    def _add_noise(self, window: Moments, single: bool) -> None:
        before, self._single = self._single, window if single else None
        if before is None or not single:
            return
        # Half the squared difference of neighbours estimates the batch-to-batch variance whatever the trend.
        self._noise_weight = NOISE_MEMORY * self._noise_weight + 1
        rate = 1 / self._noise_weight
        for held, new, old in (
            (self._noise.mean, window.mean, before.mean),
            (self._noise.variance, window.variance, before.variance),
        ):
            change = np.square(new - old) / 2 - held
            held += rate * np.where(np.isnan(change), 0.0, change)
        self.noise_updates += 1

    def _advance_shadows(self, window: Moments, updates: Array, k: float) -> None:
        # Within a window of many updates nothing is known of their order, so a shorter memory is not replayed in it.
        momentums = np.asarray(REPLAY_MOMENTUMS)
        forgotten = momentums**k
        coarse = (k > 1) & (k > COARSE / (1 - momentums))
        self._smeared = forgotten * self._smeared + (1 - forgotten) * coarse
        moved, power = ~np.isnan(window.mean), momentums[:, None] ** updates
        advanced = self._shadows.toward(window.single(), power.astype(np.float32)[:, self._segments.layer])
        self._shadows = advanced if moved.all() else advanced.where(moved, self._shadows)

    def replay(self, index: int) -> Moments:
        """The moving statistics that this one of REPLAY_MOMENTUMS would have given."""
        return Moments(self._shadows.mean[index], self._shadows.variance[index])

    def replays(self) -> tuple[list[int], Moments]:
        """Indices of the replayable ones of REPLAY_MOMENTUMS, and their moving statistics, [n, C_total]."""
        which = np.flatnonzero(self.replayable())
        return which.tolist(), Moments(self._shadows.mean[which], self._shadows.variance[which])

    def replayable(self) -> NDArray[np.bool_]:
        """Which of REPLAY_MOMENTUMS the windows were fine enough for, [8]."""
        return np.asarray(self._smeared <= SMEARED)

    def lag_cosine(self, scale: Array) -> Array:
        """Cosine over channels of the lag now and one short pool earlier, in units of ``scale``, [L]."""
        if len(self._lags) <= CHUNKS:
            return np.full(len(self._segments), np.nan)
        now, then = self._lags[-1] / scale, self._lags[0] / scale
        with np.errstate(all="ignore"):
            product = self._segments.mean(now * then)
            return np.asarray(product / (self._segments.rms(now) * self._segments.rms(then)))

    def start_distance(self, scale: Array) -> Array:
        """Rms change of the moving statistics since the record began, [L]; exactly 0 where bit-identical."""
        with np.errstate(all="ignore"):
            moved = np.hypot((self.last.mean - self.start.mean) / scale, (self.last.spread - self.start.spread) / scale)
        moved = np.where(
            (self.last.mean == self.start.mean) & (self.last.spread == self.start.spread),
            0.0,
            np.where(np.isfinite(moved), moved, np.inf),
        )
        return self._segments.rms(moved)

    def forget_since(self) -> None:
        """Begin a new span of extremes with the next window: what came before is in a record."""
        # And not at once: the last record of a run is written again, with what its last probe has found.
        self._recorded = True

    def _clear_since(self) -> None:
        self._recorded = False
        self.since = []
        self.window_nonfinite = np.zeros(len(self._segments))
        self.epoch_end = None

    @property
    def single(self) -> Moments | None:
        """Batch statistics of the last step; None where the last window held more than one update."""
        return self._single

    def noise(self) -> Moments | None:
        """Standard deviations of a single batch's mean and variance; None until measured."""
        if self.noise_updates < 3:
            return None
        return Moments(np.sqrt(self._noise.mean), np.sqrt(self._noise.variance))


def _median(values: Array) -> float:
    # Most layers have as many updates as the first one, and np.median takes ten times as long.
    first = values[0]
    return float(first if (values == first).all() else np.median(values))


def _effective_batches(k: float, beta: float) -> float:
    """(sum w)^2 / sum w^2 for weights beta^0 ... beta^(k-1)."""
    if beta >= 1.0:
        return k
    total = (1 - beta**k) / (1 - beta)
    return float(total**2 / ((1 - beta ** (2 * k)) / (1 - beta**2)))
