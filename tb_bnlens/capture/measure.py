"""One probe: which passes are run on a batch, and what of the result goes where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis.convergence import steps_to_converge
from tb_bnlens.analysis.distance import LIVE_SHARE, convergence_error, distance
from tb_bnlens.capture.data import batch_size
from tb_bnlens.capture.passes import Moments
from tb_bnlens.capture.probe import BatchPass, Probe, TrainingPass
from tb_bnlens.capture.rows import ProbeState, batch_statistics
from tb_bnlens.capture.segments import Segments
from tb_bnlens.capture.snapshots import Snapshot, WindowRecovery
from tb_bnlens.capture.subject import Subject
from tb_bnlens.capture.updates import Updates
from tb_bnlens.capture.windows import Windows
from tb_bnlens.metadata import FORECAST_POINTS, REPLAY_ROWS

Array = NDArray[np.floating[Any]]

FORECAST_SHARES = (1 / 32, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)
"""Forecast points as shares of the steps to converge of the slowest layer (95th percentile of its channels)."""
FORECAST_HORIZON = 1_000_000
"""No forecast is made further ahead than this many updates."""


class Measurement:
    """Runs the passes of one probe at the weights as they are.

    Where it takes several ``batches``, each is normalized by itself and the losses are means over them; the first is
    the one that the coming step is made on.
    """

    def __init__(self, probe: Probe, state: ProbeState, recovery: WindowRecovery, segments: Segments, tolerance: float):
        self.probe, self.state = probe, state
        self._recovery, self._segments, self._tolerance = recovery, segments, tolerance
        self._predicted: TrainingPass | None = None
        # Of the last probe: its training pass, whose update is compared with the one really made.
        self._updates = Updates(segments)
        self._present: tuple[Array, Array] | None = None
        # Of this probe: statistics at the present weights, which serve validation data too.

    def inference(self, batches: Sequence[Any], snapshot: Snapshot) -> float:
        """The loss in inference mode on these moving statistics."""
        return self._inference(batches, snapshot.mean, self._recovery.moving_variance(snapshot))

    def _inference(self, batches: Sequence[Any], mean: Array, variance: Array) -> float:
        return float(np.mean([self.probe.inference(batch, mean, variance) for batch in batches]))

    def pair(self, batches: Sequence[Any], snapshot: Snapshot, windows: Windows | None) -> dict[str, float]:
        """``batch``, ``inference``, ``training`` and ``recalibrated`` on the same batches."""
        self._present = None
        moving = snapshot.mean, self._recovery.moving_variance(snapshot)
        passes = [self.probe.batch(batch, *moving) for batch in batches]
        trained = [self.probe.training(batch) for batch in batches]
        self.state.pool(passes[0].mean, passes[0].variance)
        self.state.call_alternation = self._alternation(passes[0])
        self._predicted = trained[0]
        losses = {
            "batch": float(np.mean([passed.loss for passed in passes])),
            "inference": self._inference(batches, *moving),
            "training": float(np.mean([passed.loss for passed in trained])),
            "batch_size": float(batch_size(batches[0]) or np.nan),
        }
        if windows is not None:
            target = self._target(windows, moving)
            if target is not None:
                losses["recalibrated"] = self._inference(batches, *target)
                pooled = windows.short.merged()
                losses["short_updates"] = pooled.updates if pooled else self.state.batches
        return losses

    def recalibrated_now(self, batches: Sequence[Any], others: Sequence[Any], snapshot: Snapshot) -> dict[str, float]:
        """Inference with the mean statistics of other batches, run through the network at the present weights.

        The windows' statistics belong to past weights. This is what ``recalibrate`` would give (PreciseBN, Wu &
        Johnson 2021, section 3), so what it leaves over batch mode is batch noise and nothing else. A batch that is
        among the others is judged by the rest of them.
        """
        moving = snapshot.mean, self._recovery.moving_variance(snapshot)
        passes = [self.probe.batch(other, *moving) for other in others]
        if not passes:
            return {}

        def averaged(leave_out: Any = None) -> tuple[Array, Array]:
            kept = [p for other, p in zip(others, passes, strict=True) if other is not leave_out] or passes
            mean, variance = np.mean([p.mean for p in kept], axis=0), np.mean([p.variance for p in kept], axis=0)
            return np.where(np.isnan(mean), moving[0], mean), np.where(np.isnan(variance), moving[1], variance)

        variance = np.mean([p.variance for p in passes], axis=0)
        self._compare_batches(np.stack([p.mean for p in passes]), variance, [batch_size(other) for other in others])
        self._present = averaged()
        loss = float(np.mean([self.probe.inference(batch, *averaged(batch)) for batch in batches]))
        return {"recalibrated_now": loss, "now_batches": float(len(passes))}

    def _compare_batches(self, means: Array, variance: Array, sizes: Sequence[int | None]) -> None:
        if len(means) < 3 or not all(sizes):
            return
        # Means of alike batches of n_i samples vary by the mean of variance/n_i.
        alike = variance * np.mean([1 / size for size in sizes if size])
        live = variance > LIVE_SHARE * self._recovery.epsilon
        with np.errstate(all="ignore"):
            ratio = np.where(live, np.var(means, axis=0, ddof=1) / alike, np.nan)
        (self.state.between_within,) = self._segments.quantiles(ratio, (0.5,))

    def extras(self, batches: Sequence[Any], snapshot: Snapshot, windows: Windows) -> dict[str, float]:
        """The long pool, the replays and the forecast, on the same batches."""
        moving = snapshot.mean, self._recovery.moving_variance(snapshot)
        losses: dict[str, float] = {}
        target = self._target(windows, moving)
        pooled = windows.long.merged()
        if target is None or pooled is None:
            return losses

        def long_or_short(values: Any, short: Array) -> Array:
            return np.where(np.isnan(values), short, values)

        losses["recalibrated_long"] = self._inference(
            batches, long_or_short(pooled.mean, target[0]), long_or_short(pooled.variance, target[1])
        )
        losses["long_updates"] = pooled.updates
        shadow_mean, shadow_variance = windows.shadows()
        moved = ~np.isnan(pooled.mean)
        for i in map(int, np.flatnonzero(windows.replayable())):
            losses[REPLAY_ROWS[i]] = self._inference(
                batches,
                np.where(moved, shadow_mean[i], moving[0]),
                np.where(moved, shadow_variance[i], moving[1]),
            )
        mu, v = target
        beta = self._segments.spread(self._recovery.beta)
        for i, n in enumerate(self._horizons(mu, v, moving, moved)):
            power = np.where(moved, beta**n, 1.0)
            losses[f"forecast_step_{i}"] = float(n)
            losses[f"forecast_{i}"] = self._inference(
                batches, mu + power * (moving[0] - mu), v + power * (moving[1] - v)
            )
        return losses

    def validation(self, batch: Any, snapshot: Snapshot, windows: Windows | None) -> dict[str, float]:
        """The paired losses on a batch of validation data, and its batch statistics against the moving ones."""
        moving = snapshot.mean, self._recovery.moving_variance(snapshot)
        passed = self.probe.batch(batch, *moving)
        self.state.validation_distance = self._segments.rms(
            distance(passed.mean, passed.variance, *moving, self._recovery.epsilon)
        )
        losses = {"batch": passed.loss, "inference": self.probe.inference(batch, *moving)}
        target = self._target(windows, moving) if windows is not None else None
        if target is not None:
            losses["recalibrated"] = self.probe.inference(batch, *target)
        if self._present is not None:
            losses["recalibrated_now"] = self.probe.inference(batch, *self._present)
        losses["batch_size"] = float(batch_size(batch) or np.nan)
        return losses

    def attribution(self, batches: Sequence[Any], snapshot: Snapshot, time_left: Any) -> None:
        """Loss in batch mode with one layer at a time on its moving statistics, farthest layers first.

        Args:
            batches: the data.
            snapshot: the moving statistics.
            time_left: called before each pass; the search ends when it says 0 or less.
        """
        moving = snapshot.mean, self._recovery.moving_variance(snapshot)
        apart = self._segments.rms(distance(self.state.mean, self.state.variance, *moving, self._recovery.epsilon))
        losses = np.full(len(self._segments), np.nan)
        for index in np.argsort(-np.nan_to_num(apart, nan=np.inf)):
            if time_left() <= 0:
                break
            on_moving = np.zeros(len(self._segments), bool)
            on_moving[index] = True
            losses[index] = np.mean([self.probe.batch(batch, *moving, on_moving).loss for batch in batches])
        self.state.attribution = losses

    def momentum_of_update(self, before: Snapshot, after: Snapshot) -> Array:
        """Each layer's momentum as the step that followed the last probe shows it, [L]; NaN where it shows none.

        The training pass says where the moving statistics would go with the momentum that *it* was traced with;
        the ratio of the real step to that one is the ratio of the two values of ``1 - momentum``.
        """
        predicted, self._predicted = self._predicted, None
        if predicted is None:
            return np.full(len(self._segments), np.nan)
        gain = self._segments.spread(self.probe.traced_gain)
        real = after.mean - before.mean, after.spread - before.spread
        with np.errstate(all="ignore"):
            expected = (predicted.mean - before.mean) / gain, (predicted.spread - before.spread) / gain
        return 1.0 - self._updates.add(real, expected, self._scale(), self.probe.traced_gain)

    def compare_window(self, windows: Windows) -> None:
        """Compare the statistics recovered from the last step with those of the batch just probed, made after it."""
        predicted, self._predicted = self._predicted, None
        if predicted is None or windows.single is None:
            return
        now = windows.last
        gain = self._segments.spread(self.probe.traced_gain)
        recovered_mean, recovered_variance = windows.single
        real = gain * (recovered_mean - now.mean), gain * (recovered_variance - now.spread)
        expected = predicted.batch_mean - now.mean, predicted.batch_variance - now.spread
        self._updates.add(real, expected, self._scale(), self.probe.traced_gain)

    def _scale(self) -> Array:
        return np.asarray(np.sqrt(np.maximum(self.state.variance, 0) + self._recovery.epsilon))

    def subject(self, snapshot: Snapshot, windows: Windows, states: Array) -> Subject:
        """The layers as they are judged.

        Args:
            snapshot: the moving statistics now.
            windows: what they were chasing.
            states: position in ``metadata.STATES`` of each layer, [L].
        """
        shadow_mean, shadow_variance = windows.shadows()
        moved = self._segments.spread(windows.updates > 0).astype(bool)
        moving = Moments(snapshot.mean.astype(np.float64), self._recovery.moving_variance(snapshot).astype(np.float64))
        return Subject(
            segments=self._segments,
            epsilon=self._recovery.epsilon,
            moving=moving,
            trained=self.probe.trained(),
            states=states.astype(np.int64),
            start_left=self._recovery.weights(windows.updates)[0],
            tolerance=self._tolerance,
            replays={
                REPLAY_ROWS[i]: Moments(shadow_mean[i], shadow_variance[i]).where(moved, moving)
                for i in map(int, np.flatnonzero(windows.replayable() & moved.any()))
            },
        )

    def counts(self, windows: Windows) -> dict[str, Array]:
        """Rows of ``metadata.EVIDENCE_ROWS`` that are counted over the whole record, [L] each."""
        calls = np.bincount(self.probe.order, minlength=len(self._segments)).astype(np.float64)
        return {
            "calls": calls,
            "updates": windows.updates,
            "start_left": self._recovery.weights(windows.updates)[0],
            "decay_expected": (1 - self.probe.traced_gain) ** calls,
            "decay_observed": windows.decay.observed(self._scale()),
            "update_explained": self._updates.explained,
            "batch_at_inference": np.array(
                [self.probe.at_inference.get(i, np.nan) for i in range(len(self._segments))]
            ),
        }

    def _target(self, windows: Windows, moving: tuple[Array, Array]) -> tuple[Array, Array] | None:
        mu, v = batch_statistics(windows, self.state)
        if np.all(np.isnan(mu)):
            return None
        # A layer that no pass has met keeps what it has.
        return np.where(np.isnan(mu), moving[0], mu), np.where(np.isnan(v), moving[1], v)

    def _horizons(self, mu: Array, v: Array, moving: tuple[Array, Array], moved: NDArray[np.bool_]) -> list[int]:
        error = np.where(moved, convergence_error(mu, v, *moving, self._recovery.epsilon), np.nan)
        (high,) = self._segments.quantiles(error, (0.95,))
        steps = steps_to_converge(high, self._recovery.beta, self._tolerance)
        finite = steps[np.isfinite(steps)]
        if not len(finite) or finite.max() < 1:
            return []
        horizon = min(float(finite.max()), FORECAST_HORIZON)
        return sorted({max(1, round(share * horizon)) for share in FORECAST_SHARES})[:FORECAST_POINTS]

    def _alternation(self, passed: BatchPass) -> Array:
        result = np.full(len(self._segments), np.nan)
        epsilon = self._recovery.epsilon[self._segments.starts] if len(self._segments) else []
        for index, calls in passed.calls.items():
            (mean_a, variance_a), (mean_b, variance_b) = calls[0], calls[1]
            w = distance(mean_a, variance_a, mean_b, variance_b, float(epsilon[index]))
            result[index] = float(np.sqrt(np.nanmean(np.square(w)))) if np.any(np.isfinite(w)) else np.nan
        return result
