"""What the passes of a measurement on many batches share: the batches, the layers, and how a pass is put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.passes import Array, Outcome, Passes, Runner, moments_of
from tb_bnlens.capture.reasons import cause_of
from tb_bnlens.capture.subject import Subject
from tb_bnlens.moments.moments import Mask, Moments
from tb_bnlens.moments.statistics import BatchMoments, rms_distance

Rows = Sequence[NDArray[np.int64]]
"""Indices of rows: of each batch, or of all batches laid end to end."""
Forward = Callable[[int, Any], Outcome]
"""One pass over one batch, called with (index, batch)."""


class Present:
    """Batch statistics at the present weights, with all layers in batch mode or with the trained ones alone."""

    def __init__(self, of_trained: BatchMoments, of_all: BatchMoments, trained: Mask):
        self.of_trained, self.of_all, self._trained = of_trained, of_all, trained
        self.in_training: BatchMoments | None = None

    def best(self, leave_out: int | None = None) -> Moments:
        """As training gathers them, with dropout off; for layers that training leaves alone, those of batch mode."""
        return self.of_trained.mean(leave_out).where(self._trained, self.of_all.mean(leave_out))


class Bench:
    """Makes passes over some batches.

    Args:
        runner: the model.
        subject: its BatchNorm layers.
        batches: the data.
        sizes: samples in each.
        passes: runs and counts them.
    """

    def __init__(self, runner: Runner, subject: Subject, batches: Sequence[Any], sizes: Sequence[int], passes: Passes):
        self.runner, self.subject = runner, subject
        self.batches, self.sizes, self.passes = batches, sizes, passes
        self.rows: dict[str, Array] = {}
        """Rows of ``metadata.EVIDENCE_ROWS`` that the passes have given, [L] each."""
        self.nothing: Mask = np.zeros(len(subject.epsilon), bool)

    # --- how a pass is made --------------------------------------------------------------------------

    def on(self, moving: Moments) -> Forward:
        """Inference on these statistics."""
        return lambda _, batch: self.runner.inference(batch, moving)

    def on_each(self, moving: Callable[[int], Moments]) -> Forward:
        """Inference, each batch on the statistics that ``moving`` gives for it."""
        return lambda index, batch: self.runner.inference(batch, moving(index))

    def by_batch(self, on_moving: Mask, moving: Moments | None = None) -> Forward:
        """Batch statistics, but moving ones in the channels of the mask."""
        return lambda _, batch: self.runner.batch(batch, moving or self.subject.moving, on_moving)

    def as_trained(self) -> Forward:
        """Batch statistics in the layers that training normalizes by the batch."""
        return self.by_batch(~self.subject.trained_channels)

    def renewed(self, moments: Moments) -> Moments:
        """These in the layers that training normalizes by the batch, the moving statistics in the others."""
        moving = self.subject.moving
        return moments.where(self.subject.trained_channels, moving).or_else(moving)

    # --- passes --------------------------------------------------------------------------------------

    def run(self, name: str, forward: Forward, *, essential: bool = False, with_rows: bool = False) -> list[Outcome]:
        """A pass over all batches; see ``Passes.run``."""
        return self.passes.run(name, self.batches, self.sizes, forward, essential=essential, with_rows=with_rows)

    def composed(
        self, name: str, rows: Rows, forward: Forward, targets: Rows | None = None, *, essential: bool = False
    ) -> list[Outcome]:
        """A pass over new batches, of these rows of all batches laid end to end; see ``Passes.run``."""
        made: list[Any] = []
        self.passes.measured(name, lambda: made.extend(self.runner.compose(self.batches, rows, targets)))
        if not made:
            return []

        def taken(index: int, batch: Any) -> Outcome:
            try:
                return forward(index, batch)
            except Exception as error:
                if isinstance(error, (NotEvaluated, *self.runner.out_of_memory)):
                    raise
                # As where a row names the row of another tensor, which is in another batch now.
                raise NotEvaluated(
                    f"the model does not take new batches of the same rows ({cause_of(error)})"
                ) from error

        why = self.runner.loss_reason
        outcomes = self.passes.run(name, made, [len(r) for r in rows], taken, essential=essential)
        if self.runner.loss_reason != why:
            # A loss may have to know the size of the batch, as one with a mask or a queue does.
            self.passes.results.pop(name, None)
            self.passes.not_evaluated[name], self.runner.loss_reason = self.runner.loss_reason, why
            return []
        return outcomes

    def on_rows(self, name: str, rows: Rows, present: Present, *, with_rows: bool = False) -> bool:
        """Inference on the statistics of some rows of each batch alone, and how far they are from those of all rows.

        Returns:
            Whether they could be had; ``not_evaluated`` says why not.
        """
        found: list[Moments] = []
        sizes: list[int] = []
        as_trained = self.as_trained()

        def gather() -> None:
            for batch, chosen in zip(self.batches, rows, strict=True):
                if len(chosen) > 1:
                    (some,) = self.runner.compose([batch], [chosen])
                    found.append(moments_of(as_trained(0, some)))
                    sizes.append(len(chosen))

        self.passes.measured(name, gather)
        if not found or name in self.passes.not_evaluated:
            return False
        moments = BatchMoments(found, sizes).mean()
        self.rows[f"{name}_distance_rms"] = self.distance(moments, present.of_trained.mean())
        self.run(name, self.on(self.renewed(moments)), essential=True, with_rows=with_rows)
        return True

    def distance(self, a: Moments, b: Moments) -> Array:
        """Of the statistics in each layer, [L]."""
        return rms_distance(a, b, self.subject.segments, self.subject.epsilon)

    def describe(self, rows: Mapping[str, Array]) -> None:
        """Add rows of ``metadata.EVIDENCE_ROWS``."""
        self.rows |= rows
