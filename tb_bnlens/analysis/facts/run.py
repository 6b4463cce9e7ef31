"""All figures of a run in one object."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis import exchanged
from tb_bnlens.analysis.facts.scatter import ScatterFacts
from tb_bnlens.analysis.loss_gap import Gap
from tb_bnlens.analysis.rival import in_training

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Facts(ScatterFacts):
    """The figures of one run, computed on first use.

    Where the run was measured on many batches at its end, losses and differences are those; the probes, a batch or a
    few each, tell the course over time, and stand in where there is no such measurement.

    Masks and per-layer figures are [L], in the manifest's order. Losses are in loss units, distances in batch
    standard deviations. A figure that was not measured is NaN, or ``UNKNOWN`` where it is a gap.
    """

    # --- exchanged weights ---

    @cached_property
    def exchange(self) -> exchanged.Exchange | None:
        """The probe after the last step against those during training, None where either is missing."""
        return exchanged.compare(self.history, self.losses, self.layers)

    # --- around BatchNorm ---

    @cached_property
    def dropout_rival(self) -> str:
        """Loss that training is held against for dropout: batch statistics, or inference where all layers are fixed."""
        if self.evidence is not None and self.measured is not None:
            return in_training(self.evidence)
        return "inference" if not self.layers.names or self.constant.all() else "batch"

    @cached_property
    def dropout(self) -> Gap:
        """What dropout and other training-only layers add to the training loss."""
        if self.measured is not None and self.measured.has("training"):
            return self.measured.gap("training", self.dropout_rival)
        return self.losses.lasting_gap("training", self.dropout_rival)

    @cached_property
    def update(self) -> Gap:
        """Inference after the weight update minus inference before it, on the same batch."""
        return self.losses.lasting_gap("updated", "inference")

    @cached_property
    def averaging(self) -> Gap:
        """The loss that fit prints, an average over the epoch, minus the training loss now."""
        return self.losses.lasting_gap("fit_loss", "training")

    @cached_property
    def before_update(self) -> Gap:
        """The gap over the same probes as the two above."""
        return self.losses.lasting_gap("inference", "batch")

    @cached_property
    def dropout_before_update(self) -> Gap:
        """Training minus batch statistics over the same probes."""
        return self.losses.lasting_gap("training", "batch")
