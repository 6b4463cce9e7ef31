"""One probe after another: when, on which batch, what of it is written, and what happens where one fails."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.adapter import ModelAdapter
from tb_bnlens.capture.batches import Batches
from tb_bnlens.capture.evidence import Judgement
from tb_bnlens.capture.guard import LOSSES, RECORD, VALIDATION, Guard
from tb_bnlens.capture.log import RunLog
from tb_bnlens.capture.measure import Measurement
from tb_bnlens.capture.passes import has_uncounted_rows
from tb_bnlens.capture.reservoir import Kept, fewer
from tb_bnlens.capture.schedule import Level, Schedule
from tb_bnlens.capture.still import still
from tb_bnlens.capture.stopwatch import Stopwatch
from tb_bnlens.metadata import EventKind, Moment
from tb_bnlens.moments.recovery import Snapshot
from tb_bnlens.moments.windows import Windows

ATTRIBUTION_SECONDS = 0.5
"""Attribution at the end may take this long even where the budget is spent."""
JUDGEMENT_SECONDS = 1.0
JUDGEMENT_SHARE = 0.02
"""The final measurement may take this long, or this share of the training time if that is longer."""
FEWEST_JUDGED = 4
"""Batches that are judged however long their passes take."""
FEWEST_EXPLAINED = 8
"""The same where inference is worse: four batches with every pass left 3 of 18 faults without their cause."""
FEWEST_NEWER = 3
"""Batches since the data changed by which alone a run is judged: fewer have no spread of their statistics."""
ESSENTIAL_PASSES = 5
"""What the essential passes take, in units of one inference pass."""
TIMED_PASSES = 3
"""Passes whose fastest tells what one takes."""
INTERIM_BATCHES = 8
INTERIM_RESERVE = 2.0
"""A measurement during training is made if the budget holds this many full probes: itself and the last one."""
UPDATES = "the comparison of updates"
EVIDENCE = "the evidence"
"""A part that can be given up on its own; see Guard."""


class Prober:
    """Runs measurements at the weights as they are, and holds one back until the step after it is made.

    Args:
        adapter: the model.
        measurement: what a probe consists of.
        batches: what it is made on.
        schedule: when, and what it may cost.
        guard: keeps its faults inside.
        log: where its losses go.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        measurement: Measurement,
        batches: Batches,
        schedule: Schedule,
        guard: Guard,
        log: RunLog,
    ):
        self._adapter, self._measurement, self._batches = adapter, measurement, batches
        self._schedule, self._guard, self._log = schedule, guard, log
        self.probed_step = -1
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

    def due(self, step: int) -> Level | None:
        """What the schedule asks to be measured at the present weights."""
        return self._schedule.probe_due(step) if self.works else None

    def count_calls(self) -> None:
        """Have one pass traced, which tells how often each layer is called, unless that is known."""
        batch = self._batches.to_probe() if self.works and not self._measurement.runner.order else None
        if batch is not None:
            with self._guard(LOSSES, self._batches.argument), self._tracing_told_apart(), still():
                self._measurement.runner.count_calls(batch)

    def probe(self, level: Level, step: int, windows: Windows) -> None:
        """Measure the losses of the batch at hand; where memory ends, half as much from there on.

        Args:
            level: how much.
            step: steps made so far.
            windows: the moving statistics now, and what they were chasing.
        """
        if self._batches.to_probe() is None or not self.works:
            return
        guarded = self._guard(LOSSES, self._batches.argument)
        with guarded, self._schedule.timed(level), self._tracing_told_apart():
            # Kept batches would start from the state that the newest one has left.
            others = [] if self._measurement.runner.carries_state else self._batches.others()
            batches, validation = self._batches.to_probe_together(others), self._batches.validation()
            try:
                losses = self._measure(batches, others, validation, level, windows)
            except self._measurement.runner.out_of_memory:
                if not self._batches.back_off():
                    raise
                self._log.note(f"A probe ran out of memory at step {step}: half as much is probed from there on.")
                return
            if self._measurement.runner.loss_reason:
                self._log.not_evaluated("losses", self._measurement.runner.loss_reason)
            self._probed, self._losses, self.probed_step = batches, losses, step

    @still()
    def _measure(
        self, batches: list[Any], others: list[Any], validation: Any, level: Level, windows: Windows
    ) -> dict[str, dict[str, float]]:
        measurement = self._measurement
        losses = {"train": measurement.pair(batches, windows)}
        if level == Level.FULL and len(windows.updates):
            losses["train"] |= measurement.extras(batches, windows)
            losses["train"] |= measurement.recalibrated_now(batches, others, windows.last)
        if validation is not None:
            # A fault there costs these losses alone; where memory ends, all of the probe is made smaller.
            runner = measurement.runner
            with self._guard(VALIDATION, "validation_data", but=runner.out_of_memory):
                why = runner.loss_reason
                losses["validation"] = measurement.validation(validation, windows)
                if runner.loss_reason != why:
                    del losses["validation"]
                    self._guard.give_up(VALIDATION, f"validation_data: {runner.loss_reason}")
                    runner.loss_reason = why
        return losses

    def momentum_of_update(self, before: Snapshot, after: Snapshot) -> NDArray[np.floating[Any]]:
        """See ``Measurement.momentum_of_update``."""
        return self._measurement.momentum_of_update(before, after)

    def compare_window(self, windows: Windows) -> None:
        """See ``Measurement.compare_window``; for a loop that shows its batch after the step."""
        if windows.step != self.probed_step:
            return  # the last window is of an earlier step than the probed batch
        with self._guard(UPDATES), still():
            self._measurement.compare_window(windows, self._probed[0])

    @property
    def unsettled(self) -> bool:
        """Whether a comparison waits for the next step."""
        return self._measurement.unsettled

    def settle(self, step: int) -> None:
        """See ``Measurement.settle``."""
        if self.unsettled:
            with self._guard(UPDATES), self._schedule.timed("probe"), self._tracing_told_apart(), still():
                self._measurement.settle(step == self.probed_step + 1)

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
        if self.works and not self._measurement.runner.carries_state:
            with self._guard("the loss after the update"), self._schedule.timed("probe"), still():
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
        with self._guard("the attribution"), self._schedule.timed("full"), still():
            self._measurement.attribution(self._probed, snapshot, lambda: ends - self._schedule.now())

    def judge(
        self,
        step: int,
        snapshot: Snapshot,
        windows: Windows,
        states: NDArray[np.floating[Any]],
        moment: Moment = Moment.END,
    ) -> None:
        """Measure on the kept batches what each cause's intervention gives, and write it.

        During training only the essential passes are made, on some of the batches, and only if the budget pays.

        Args:
            step: training steps made.
            snapshot: the moving statistics now.
            windows: what they were chasing.
            states: position in ``metadata.State`` of each layer, [L].
            moment: when it is made.
        """
        kept, last = self._batches.to_judge(), moment == Moment.END
        if not last:
            kept = fewer(kept, INTERIM_BATCHES)
            if self._schedule.left_for_probes() < INTERIM_RESERVE * self._schedule.costs["full"].mean:
                return
        if not kept or not self.works:
            return
        with self._guard(EVIDENCE), self._schedule.timed("full"), self._tracing_told_apart(), still():
            validation = self._batches.validation_to_judge()
            measurement, runner = self._measurement, self._measurement.runner
            subject = measurement.subject(snapshot, windows, states)
            watch = Stopwatch(runner.tracing, runner.accelerated)
            limit = max(JUDGEMENT_SECONDS, JUDGEMENT_SHARE * self._schedule.elapsed)
            if math.isinf(self._schedule.overhead):
                limit = math.inf

            def judgement_of(batches: list[Kept]) -> Judgement:
                return Judgement(
                    runner, subject, batches, validation, lambda: limit - watch.seconds(), self._guard.strict
                )

            count = self._affordable(kept, lambda k: runner.inference(k.batch, subject.moving), watch, limit)
            judgement = judgement_of(self._representative(kept, count))
            lost = judgement.without_loss()
            if lost:
                if last:
                    self._log.note(f"{len(lost)} of the kept batches have no finite loss, and the others are judged.")
                kept = [k for k in kept if k.step not in lost]
                judgement = judgement_of(self._representative(kept, count))
            enough = min(FEWEST_EXPLAINED, len(kept))
            if last and count < enough and judgement.finds_inference_worse():
                judgement = judgement_of(self._representative(kept, enough))
            changed = judgement.newer_kind(self._batches.reservoir) if last else None
            newer = [k for k in kept if changed is not None and k.step >= changed]
            if changed is not None:
                text = "the batches that were kept from here on are of another kind than those before them"
                self._log.event(changed, EventKind.DATA_CHANGED, text)
            earlier = judgement.before(changed) if changed is not None and len(newer) >= FEWEST_NEWER else {}
            if earlier:
                # The model is for what it is trained on now; statistics of two kinds fit neither.
                judgement = judgement_of(self._representative(newer, count))
            evidence = judgement.evidence(step, moment, measurement.counts(windows), interventions=last)
            evidence = replace(evidence, earlier=earlier)
            if runner.loss_reason:
                self._log.not_evaluated("losses", runner.loss_reason)
            self._log.write_evidence(replace(evidence, seconds=watch.seconds()), step)

    def _affordable(self, kept: list[Kept], passed: Callable[[Kept], Any], watch: Stopwatch, limit: float) -> int:
        """How many of the kept batches are judged: half the time has to do for the essential passes."""
        passed(kept[0])  # what happens once in a first pass says nothing of the others
        # On a busy machine passes take now longer, now not; what others do must not change what is judged.
        taken = max(min(_seconds(watch, lambda: passed(kept[0])) for _ in range(TIMED_PASSES)), 1e-6)
        count = len(kept)
        while count > FEWEST_JUDGED and ESSENTIAL_PASSES * taken * count > limit / 2:
            count = max(count // 2, FEWEST_JUDGED)
        return count

    def _representative(self, kept: list[Kept], count: int) -> list[Kept]:
        """So many of the kept batches, spread over all, with one that holds rows of weight 0 if any does.

        Such batches can be rare, as where the last one of each epoch is padded, and their statistics are unlike the
        others'.
        """

        def padded(one: Kept) -> bool:
            return has_uncounted_rows(self._measurement.runner.weights(one.batch))

        chosen = fewer(kept, count)
        if any(map(padded, kept)) and not any(map(padded, chosen)):
            chosen = sorted([*fewer(kept, count - 1), next(filter(padded, kept))], key=lambda k: k.step)
        return chosen

    def write(self) -> None:
        """Write the pending losses. They are of the weights that were probed, not to a step made on them since."""
        losses, self._losses = self._losses, None
        if losses is None:
            return
        self._probed = []
        rows = losses["train"]
        rows["overhead"] = self._schedule.share
        rows["tracing_seconds"] = self._schedule.excluded
        with self._guard(RECORD):
            learning_rate = self._adapter.learning_rate()
            if learning_rate is not None:
                rows["learning_rate"] = learning_rate
            self._log.write_losses(losses, self.probed_step)

    @contextlib.contextmanager
    def _tracing_told_apart(self) -> Iterator[None]:
        # Tracing is paid once: it must not count against what recording costs all along.
        traced = self._measurement.runner.tracing.seconds
        try:
            yield
        finally:
            self._schedule.excluded += self._measurement.runner.tracing.seconds - traced


def _seconds(watch: Stopwatch, work: Callable[[], Any]) -> float:
    before = watch.seconds()
    work()
    return watch.seconds() - before
