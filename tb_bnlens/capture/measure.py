"""One probe: which passes are run on a batch, and what of the result goes where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis.convergence import steps_to_converge
from tb_bnlens.analysis.distance import LIVE_SHARE, convergence_error
from tb_bnlens.capture.adapter import BatchFormat
from tb_bnlens.capture.passes import Outcome, Runner, moments_of
from tb_bnlens.capture.rows import ProbeState, batch_statistics
from tb_bnlens.capture.subject import Subject
from tb_bnlens.capture.targets import entropy_in
from tb_bnlens.metadata import FORECAST_POINTS, REPLAY_ROWS
from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.recovery import Snapshot, WindowRecovery
from tb_bnlens.moments.segments import Segments
from tb_bnlens.moments.updates import Updates
from tb_bnlens.moments.windows import Windows

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

    def __init__(
        self,
        runner: Runner,
        form: BatchFormat,
        state: ProbeState,
        recovery: WindowRecovery,
        segments: Segments,
        tolerance: float,
    ):
        self.runner, self.state, self._form = runner, state, form
        self._recovery, self._segments, self._tolerance = recovery, segments, tolerance
        self._predicted: Outcome | None = None
        # Of the last probe: its training pass, whose update is compared with the one really made.
        self._updates = Updates(segments)
        self._compared: tuple[Any, Callable[[Moments], None]] | None = None
        self._present: Moments | None = None
        # Of this probe: statistics at the present weights, which serve validation data too.

    def inference(self, batches: Sequence[Any], snapshot: Snapshot) -> float:
        """The loss in inference mode on these moving statistics."""
        return self._inference(batches, self._recovery.moving(snapshot))

    def _inference(self, batches: Sequence[Any], moving: Moments) -> float:
        return float(np.mean([self.runner.inference(batch, moving).loss for batch in batches]))

    def pair(self, batches: Sequence[Any], windows: Windows) -> dict[str, float]:
        """``batch``, ``inference``, ``training`` and ``recalibrated`` on the same batches."""
        self._present = None
        moving = self._recovery.moving(windows.last)
        passes = [self.runner.batch(batch, moving) for batch in batches]
        trained = passes if self.runner.trains_by_batch else [self.runner.training(batch) for batch in batches]
        self.state.pool(moments_of(passes[0]))
        self.state.call_alternation = self._alternation(passes[0])
        self._predicted = trained[0]
        losses = {
            "batch": float(np.mean([passed.loss for passed in passes])),
            "inference": self._inference(batches, moving),
            "training": float(np.mean([passed.loss for passed in trained])),
            "batch_size": float(self._form.size(batches[0]) or np.nan),
            "target_entropy": entropy_in(self._form.targets, batches[0]),
        }
        target = self._target(windows, moving)
        if target is not None:
            losses["recalibrated"] = self._inference(batches, target)
            pooled = windows.short.merged()
            losses["short_updates"] = pooled.updates if pooled else self.state.batches
        return losses

    def recalibrated_now(self, batches: Sequence[Any], others: Sequence[Any], snapshot: Snapshot) -> dict[str, float]:
        """Inference with the mean statistics of other batches, run through the network at the present weights.

        The windows' statistics are of past weights. This is what ``recalibrate`` would give (PreciseBN, Wu &
        Johnson 2021, section 3), so what it leaves over batch mode is batch noise and nothing else. A batch that is
        among the others is judged by the rest of them.
        """
        moving = self._recovery.moving(snapshot)
        seen = [moments_of(self.runner.batch(other, moving)) for other in others]
        if not seen:
            return {}

        def averaged(leave_out: Any = None) -> Moments:
            kept = [m for other, m in zip(others, seen, strict=True) if other is not leave_out] or seen
            mean, variance = np.mean([m.mean for m in kept], axis=0), np.mean([m.variance for m in kept], axis=0)
            return Moments(mean, variance).or_else(moving)

        variance = np.mean([m.variance for m in seen], axis=0)
        self._compare_batches(np.stack([m.mean for m in seen]), variance, [self._form.size(other) for other in others])
        self._present = averaged()
        loss = float(np.mean([self.runner.inference(batch, averaged(batch)).loss for batch in batches]))
        return {"recalibrated_now": loss, "now_batches": float(len(seen))}

    def _compare_batches(self, means: Array, variance: Array, sizes: Sequence[int | None]) -> None:
        if len(means) < 3 or not all(sizes):
            return
        # Means of similar batches of n_i samples vary by the mean of variance/n_i.
        similar = variance * np.mean([1 / size for size in sizes if size])
        live = variance > LIVE_SHARE * self._recovery.epsilon
        with np.errstate(all="ignore"):
            ratio = np.where(live, np.var(means, axis=0, ddof=1) / similar, np.nan)
        (self.state.between_within,) = self._segments.quantiles(ratio, (0.5,))

    def extras(self, batches: Sequence[Any], windows: Windows) -> dict[str, float]:
        """The long pool, the replays and the forecast, on the same batches."""
        moving = self._recovery.moving(windows.last)
        losses: dict[str, float] = {}
        target = self._target(windows, moving)
        pooled = windows.long.merged()
        if target is None or pooled is None:
            return losses
        long = pooled.moments.or_else(target)
        losses["recalibrated_long"] = self._inference(batches, long)
        losses["long_updates"] = pooled.updates
        moved = ~np.isnan(pooled.moments.mean)
        for i in map(int, np.flatnonzero(windows.replayable())):
            losses[REPLAY_ROWS[i]] = self._inference(batches, windows.replay(i).where(moved, moving))
        beta = self._segments.per_channel(self._recovery.beta)
        for i, n in enumerate(self._horizons(target, moving, moved)):
            losses[f"forecast_step_{i}"] = float(n)
            losses[f"forecast_{i}"] = self._inference(batches, moving.toward(target, np.where(moved, beta**n, 1.0)))
        return losses

    def validation(self, batch: Any, windows: Windows) -> dict[str, float]:
        """The paired losses on a batch of validation data, and its batch statistics against the moving ones."""
        moving = self._recovery.moving(windows.last)
        passed = self.runner.batch(batch, moving)
        self.state.validation_distance = self._apart(moments_of(passed), moving)
        losses = {"batch": passed.loss, "inference": self.runner.inference(batch, moving).loss}
        target = self._target(windows, moving)
        if target is not None:
            losses["recalibrated"] = self.runner.inference(batch, target).loss
        if self._present is not None:
            losses["recalibrated_now"] = self.runner.inference(batch, self._present).loss
        losses["batch_size"] = float(self._form.size(batch) or np.nan)
        return losses

    def attribution(self, batches: Sequence[Any], snapshot: Snapshot, time_left: Any) -> None:
        """Loss in batch mode with one layer at a time on its moving statistics, farthest layers first.

        Args:
            batches: the data.
            snapshot: the moving statistics.
            time_left: called before each pass; the search ends when it says 0 or less.
        """
        moving = self._recovery.moving(snapshot)
        apart = self._apart(self.state.moments, moving)
        losses = np.full(len(self._segments), np.nan)
        for index in np.argsort(-np.nan_to_num(apart, nan=np.inf)):
            if time_left() <= 0:
                break
            on_moving = self._segments.layer == index
            losses[index] = np.mean([self.runner.batch(batch, moving, on_moving).loss for batch in batches])
        self.state.attribution = losses

    def _apart(self, a: Moments, b: Moments) -> Array:
        return self._segments.rms(a.distance(b, self._recovery.epsilon))

    def momentum_of_update(self, before: Snapshot, after: Snapshot) -> Array:
        """Each layer's momentum as the step that followed the last probe shows it, [L]; NaN where it shows none.

        The training pass says where the moving statistics would go with the momentum that *it* was traced with;
        the ratio of the real step to that one is the ratio of the two values of ``1 - momentum``.
        """
        predicted, self._predicted = self._predicted, None
        if predicted is None:
            return np.full(len(self._segments), np.nan)
        gain = self._segments.per_channel(self.runner.gain)
        real = after.mean - before.mean, after.spread - before.spread
        if predicted.after is None:
            seen = moments_of(predicted)
            expected = seen.mean - before.mean, seen.variance - before.spread
        else:
            then = predicted.after
            with np.errstate(all="ignore"):
                expected = (then.mean - before.mean) / gain, (then.spread - before.spread) / gain
        return 1.0 - self._updates.add(real, expected, self._scale(), self.runner.gain)

    def compare_window(self, windows: Windows, batch: Any) -> None:
        """Compare the statistics recovered from the last step with those of the batch just probed, made after it.

        The weights have moved between the two. How much that does is known after one more step, see ``settle``.

        Args:
            windows: the last one is that step's.
            batch: the probed one.
        """
        predicted, self._predicted = self._predicted, None
        if predicted is None or windows.single is None:
            return
        now, seen = windows.last, moments_of(predicted)
        gain = self._segments.per_channel(self.runner.gain)
        recovered = windows.single
        with np.errstate(all="ignore"):
            # What was left to go before the step: after it, a step that goes all the way leaves only noise.
            mean, spread = (
                (x - y) / (1.0 - gain) for x, y in ((recovered.mean, now.mean), (recovered.variance, now.spread))
            )
        real = gain * mean, gain * spread
        expected = mean + seen.mean - recovered.mean, spread + seen.variance - recovered.variance
        scale = self._scale()

        def add(later: Moments) -> None:
            doubtful = self._updates.moved_by_weights(recovered, seen, later, scale)
            self._updates.add(real, expected, scale, self.runner.gain, doubtful)

        self._compared = batch, add

    @property
    def unsettled(self) -> bool:
        """Whether a comparison waits for one more step."""
        return self._compared is not None

    def settle(self, one_step_later: bool) -> None:
        """End a comparison: look at its batch again, at the weights after one more step, or give it up."""
        compared, self._compared = self._compared, None
        if compared is not None and one_step_later:
            batch, add = compared
            add(moments_of(self.runner.training(batch)))

    def _scale(self) -> Array:
        return np.asarray(np.sqrt(np.maximum(self.state.variance, 0) + self._recovery.epsilon))

    def subject(self, snapshot: Snapshot, windows: Windows, states: Array) -> Subject:
        """The layers as they are judged.

        Args:
            snapshot: the moving statistics now.
            windows: what they were chasing.
            states: position in ``metadata.State`` of each layer, [L].
        """
        moved = self._segments.per_channel(windows.updates > 0).astype(bool)
        moving = self._recovery.moving(snapshot).double()
        return Subject(
            segments=self._segments,
            epsilon=self._recovery.epsilon,
            moving=moving,
            trained=self.runner.trained(),
            states=states.astype(np.int64),
            start_left=windows.start_left(),
            tolerance=self._tolerance,
            replays={
                REPLAY_ROWS[i]: windows.replay(i).where(moved, moving)
                for i in map(int, np.flatnonzero(windows.replayable() & moved.any()))
            },
        )

    def counts(self, windows: Windows) -> dict[str, Array]:
        """Rows of ``metadata.EVIDENCE_ROWS`` that are counted over the whole record, [L] each."""
        calls = np.bincount(self.runner.order, minlength=len(self._segments)).astype(np.float64)
        return {
            "calls": calls,
            "updates": windows.updates,
            "start_left": windows.start_left(),
            "decay_expected": (1 - self.runner.gain) ** calls,
            "decay_observed": windows.decay.observed(self._scale()),
            "update_explained": self._updates.explained,
            "batch_at_inference": np.array(
                [self.runner.at_inference.get(i, np.nan) for i in range(len(self._segments))]
            ),
        }

    def _target(self, windows: Windows, moving: Moments) -> Moments | None:
        target = batch_statistics(windows, self.state)
        # A layer that no pass has met keeps what it has.
        return None if np.all(np.isnan(target.mean)) else target.or_else(moving)

    def _horizons(self, target: Moments, moving: Moments, moved: NDArray[np.bool_]) -> list[int]:
        parts = target.mean, target.variance, moving.mean, moving.variance
        error = np.where(moved, convergence_error(*parts, self._recovery.epsilon), np.nan)
        (high,) = self._segments.quantiles(error, (0.95,))
        steps = steps_to_converge(high, self._recovery.beta, self._tolerance)
        finite = steps[np.isfinite(steps)]
        if not len(finite) or finite.max() < 1:
            return []
        horizon = min(float(finite.max()), FORECAST_HORIZON)
        return sorted({max(1, round(share * horizon)) for share in FORECAST_SHARES})[:FORECAST_POINTS]

    def _alternation(self, passed: Outcome) -> Array:
        result = np.full(len(self._segments), np.nan)
        epsilon = self._recovery.epsilon[self._segments.starts] if len(self._segments) else []
        for index, calls in passed.calls.items():
            # Neighbouring time steps differ less than the first and the last one.
            apart = [np.square(calls[0].distance(other, epsilon[index])) for other in calls[1:]]
            known = [float(np.sqrt(np.nanmean(w))) for w in apart if np.any(np.isfinite(w))]
            result[index] = max(known, default=np.nan)
        return result
