"""One probe after another: when, on which batch, what of it is written, and what happens where one fails."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tb_bnlens.capture.batches import Batches
from tb_bnlens.capture.guard import LOSSES, RECORD, Guard
from tb_bnlens.capture.log import RunLog
from tb_bnlens.capture.measure import Measurement
from tb_bnlens.capture.schedule import Schedule
from tb_bnlens.capture.snapshots import Snapshot
from tb_bnlens.capture.windows import Windows

ATTRIBUTION_SECONDS = 0.5
"""Attribution at the end may take this long even where the budget is spent."""


class Prober:
    """Runs measurements at the weights as they are, and holds one back until the step after it is made.

    Args:
        model: whose optimizer knows the learning rate.
        measurement: what a probe consists of.
        batches: what it is made on.
        schedule: when, and what it may cost.
        guard: keeps its faults inside.
        log: where its losses go.
    """

    def __init__(
        self,
        model: Any,
        measurement: Measurement,
        batches: Batches,
        schedule: Schedule,
        guard: Guard,
        log: RunLog,
    ):
        self._model, self._measurement, self._batches = model, measurement, batches
        self._schedule, self._guard, self._log = schedule, guard, log
        self.last_step = -1
        """Step of the last probe."""
        self._probed: list[Any] = []
        self._losses: dict[str, dict[str, float]] | None = None

    @property
    def works(self) -> bool:
        """Whether losses have not been given up."""
        return self._guard.works(LOSSES)

    @property
    def pending(self) -> bool:
        """Whether the losses of a probe are not written yet."""
        return self._losses is not None

    def due(self, step: int) -> str | None:
        """What the schedule asks to be measured at the present weights."""
        return self._schedule.probe_due(step) if self.works else None

    def count_calls(self) -> None:
        """Have one pass traced, which tells how often each layer is called, unless that is known."""
        batch = self._batches.to_probe() if self.works and not self._measurement.probe.order else None
        if batch is not None:
            with self._guard(LOSSES), self._tracing_told_apart():
                self._measurement.probe.count_calls(batch)

    def probe(self, level: str, step: int, snapshot: Snapshot, windows: Windows | None) -> None:
        """Measure the losses of the batch at hand; where memory ends, half as much from there on.

        Args:
            level: ``"probe"`` or ``"full"``; see ``Schedule.probe_due``.
            step: steps made so far.
            snapshot: the moving statistics now.
            windows: what they were chasing, None for a model without BatchNorm.
        """
        if self._batches.to_probe() is None or not self.works:
            return
        with self._guard(LOSSES), self._schedule.timed(level), self._tracing_told_apart():
            others = self._batches.others()
            batches = self._batches.to_probe_together(others)
            try:
                losses = self._measure(batches, others, level, snapshot, windows)
            except tf.errors.ResourceExhaustedError:
                if not self._batches.back_off():
                    raise
                self._log.note(f"A probe ran out of memory at step {step}: half as much is probed from there on.")
                return
            if self._measurement.probe.loss_reason:
                self._log.not_evaluated("losses", self._measurement.probe.loss_reason)
            self._probed, self._losses, self.last_step = batches, losses, step

    def _measure(
        self, batches: list[Any], others: list[Any], level: str, snapshot: Snapshot, windows: Windows | None
    ) -> dict[str, dict[str, float]]:
        measurement = self._measurement
        losses = {"train": measurement.pair(batches, snapshot, windows)}
        if level == "full" and windows is not None:
            losses["train"] |= measurement.extras(batches, snapshot, windows)
            losses["train"] |= measurement.recalibrated_now(batches, others, snapshot)
        validation = self._batches.validation()
        if validation is not None:
            losses["validation"] = measurement.validation(validation, snapshot, windows)
        return losses

    def momentum_of_update(self, before: Snapshot, after: Snapshot) -> NDArray[np.floating[Any]]:
        """See ``Measurement.momentum_of_update``."""
        return self._measurement.momentum_of_update(before, after)

    def step_made(self, fit_loss: float | None, now: Callable[[], Snapshot]) -> None:
        """Measure the pending batches after the update, too, and write what is known of it.

        Args:
            fit_loss: what ``fit`` shows as the loss, a running mean.
            now: reads the moving statistics after the step.
        """
        if self._losses is None:
            return
        if fit_loss is not None:
            self._losses["train"]["fit_loss"] = fit_loss
        if self.works:
            with self._guard("the loss after the update"), self._schedule.timed("probe"):
                self._losses["train"]["updated"] = self._measurement.inference(self._probed, now())
        self.write()

    def attribute(self, snapshot: Snapshot, tolerance: float) -> None:
        """Share out the gap of the pending probe among the layers, where there is one."""
        if self._losses is None:
            return
        losses = self._losses["train"]
        if not losses["inference"] - losses["batch"] > tolerance * abs(losses["batch"]):
            return
        ends = self._schedule.now() + max(ATTRIBUTION_SECONDS, self._schedule.left_for_probes())
        with self._guard("the attribution"), self._schedule.timed("full"):
            self._measurement.attribution(self._probed, snapshot, lambda: ends - self._schedule.now())

    def write(self) -> None:
        """Write the pending losses. They belong to the weights that were probed, not to a step made on them since."""
        losses, self._losses = self._losses, None
        if losses is None:
            return
        self._probed = []
        rows = losses["train"]
        rows["overhead"] = self._schedule.share
        rows["tracing_seconds"] = self._schedule.excluded
        # A custom loop may keep its optimizer outside the model.
        optimizer = getattr(self._model, "optimizer", None)
        with self._guard(RECORD):
            if optimizer is not None:
                rows["learning_rate"] = float(np.asarray(optimizer.learning_rate))
            self._log.write_losses(losses, self.last_step)

    @contextlib.contextmanager
    def _tracing_told_apart(self) -> Iterator[None]:
        # Tracing is paid once: it must not count against what recording costs all along.
        traced = self._measurement.probe.tracing_seconds
        try:
            yield
        finally:
            self._schedule.excluded += self._measurement.probe.tracing_seconds - traced
