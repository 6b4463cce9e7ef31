"""What a record holds: its parts, read once, and how far it goes."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.batches import BatchScatter, batches
from tb_bnlens.analysis.composition import Composition
from tb_bnlens.analysis.lag import LayerTable, table
from tb_bnlens.analysis.last_probes import measure
from tb_bnlens.analysis.loss_gap import Losses
from tb_bnlens.analysis.measured import Measured, final
from tb_bnlens.analysis.parts import Parts
from tb_bnlens.analysis.sudden import Leap, comes_and_goes, leap
from tb_bnlens.history import Evidence, History, Manifest
from tb_bnlens.metadata import FLAX, HALF_PRECISION, KERAS, KERAS_2, TORCH, Moment

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

FIRST_PROBES = 3
"""Probes that tell where the loss began, the highest of them: a single batch may be an easy one."""


class RecordFacts:
    """The record, and the measurements in it.

    Args:
        history: of the run.
    """

    def __init__(self, history: History) -> None:
        self.history = history

    @cached_property
    def manifest(self) -> Manifest:
        """What the recorder says of the run."""
        return self.history.manifest

    @cached_property
    def evidence(self) -> Evidence | None:
        """The measurement on many batches that the run is judged by, None where there is none."""
        return final(self.history)

    @cached_property
    def measured(self) -> Measured | None:
        """What it says of the losses, None where there is none or no loss could be measured."""
        if self.evidence is None or not np.isfinite(self.evidence.mean("batch")) or self.losses.diverged:
            return None
        return Measured(self.evidence, self.losses)

    @cached_property
    def composition(self) -> Composition | None:
        """What it says of the rows in a batch, None where there is none."""
        return None if self.measured is None else Composition(self.measured, self.losses, self.start_loss)

    @cached_property
    def start_loss(self) -> float:
        """The loss with batch statistics at the start, of a network that knows nothing; NaN where it is not known."""
        batch = self.history.loss("batch").astype(np.float64)
        first = batch[np.isfinite(batch)][:FIRST_PROBES]
        return float(first.max()) if len(first) else math.nan

    @cached_property
    def parts(self) -> Parts | None:
        """What each cause of stale statistics takes, None where no interventions were measured."""
        if self.measured is None or not self.measured.has("inference", "recalibrated"):
            return None
        return Parts(
            self.measured,
            self.layers,
            self.manifest,
            self.last_step,
            self.leap.layers,
            comes_and_goes(self.history, self.layers),
        )

    @cached_property
    def leap(self) -> Leap:
        """Moving statistics that moved all at once between two records, and still hold it."""
        return leap(self.history, self.layers)

    @cached_property
    def rest_is(self) -> str:
        """See ``Parts.why``; empty where no interventions were measured."""
        return "" if self.parts is None else self.parts.why(self.batches_differ)

    @cached_property
    def batches_differ(self) -> bool:
        """Whether the batches are not draws of one kind, or the statistics still hold those of another from before."""
        if self.measured is None or self.composition is None:
            return bool(self.batches.unlike.any())
        return self.composition.differ or self.left_of_past > self.layers.tolerance

    @cached_property
    def left_of_past(self) -> float:
        """Share of the moving statistics that is from before the data changed (median layer); 0 where they did not."""
        if self.composition is None or not self.composition.changed:
            return 0.0
        layers, since = self.layers, self.composition.steps_since
        with np.errstate(all="ignore"):
            left = (layers.beta ** (since * layers.updates_per_step))[layers.updating]
        return float(np.nan_to_num(robust.median(left)))

    @cached_property
    def losses(self) -> Losses:
        """The paired losses of the probes on training batches."""
        return measure(self.history, "train", self.evidence)

    @cached_property
    def validation(self) -> Losses:
        """The paired losses on validation data."""
        return measure(self.history, "validation")

    @cached_property
    def layers(self) -> LayerTable:
        """The layers at the end of the record."""
        return table(self.history, self.evidence)

    @cached_property
    def batches(self) -> BatchScatter:
        """How far the batches differ from random draws."""
        return batches(self.history, self.layers)

    @cached_property
    def over(self) -> bool:
        """Whether training has ended, as planned or not."""
        measured_last = self.evidence is not None and self.evidence.moment == Moment.END and self.at_last_step
        return measured_last or bool(getattr(self.manifest, "ended", ""))

    @cached_property
    def checked(self) -> bool:
        """Whether this is a check of one moment, so that nothing is known of the course of training."""
        return any(evidence.moment == Moment.CHECK for evidence in self.history.evidence)

    @property
    def at_last_step(self) -> bool:
        """Whether the measurement on many batches is of the last step."""
        return self.evidence is not None and self.evidence.step >= self.last_step

    @property
    def last_step(self) -> int:
        """The last step of the record, 0 where it is empty."""
        return self.history.last_step or 0

    @cached_property
    def first_step(self) -> int | None:
        """The first step of the record, None where it is empty."""
        return min((int(s[0]) for s in (self.history.steps, self.history.loss_steps) if len(s)), default=None)

    @property
    def half_precision(self) -> bool:
        """Whether layers keep their moving statistics in half precision, which loses small updates."""
        return any(HALF_PRECISION in note for note in self.manifest.notes)

    @property
    def in_keras(self) -> bool:
        """Whether a model of Keras was recorded."""
        return self.manifest.framework in (KERAS, KERAS_2)

    @property
    def in_flax(self) -> bool:
        """Whether a module of flax was recorded."""
        return self.manifest.framework == FLAX

    @property
    def in_torch(self) -> bool:
        """Whether a model of PyTorch was recorded."""
        return self.manifest.framework == TORCH

    @property
    def has_layers(self) -> bool:
        """Whether the model has BatchNorm layers."""
        return bool(self.manifest.layers)

    def row(self, name: str) -> Array:
        """A row of ``metadata.EVIDENCE_ROWS``, [L]; NaN where it was not measured."""
        found = np.empty(0) if self.evidence is None else self.evidence.layers.get(name, np.empty(0))
        return found if len(found) else np.full(len(self.layers.names), np.nan)
