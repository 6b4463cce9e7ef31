"""What recording asks of a model, whatever framework it is from: five questions.

Which BatchNorm layers are there (``layers``), what are their statistics now and how many updates have they had
(``reader``), what does a batch give in this mode with these statistics (``runner``), with which loss and metrics
(``runner`` again), and what has the step got (``batches``)? ``tb_bnlens.frameworks`` has an answer for each framework.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.passes import Runner
from tb_bnlens.moments.layers import ModelLayer, TrackedLayer
from tb_bnlens.moments.recovery import Snapshot
from tb_bnlens.moments.segments import Segments

Array = NDArray[np.floating[Any]]


class StatisticsReader(Protocol):
    """Reads the statistics of some layers."""

    def read(self) -> Snapshot:
        """The moving statistics now, in the order of the layers. The arrays are copies, since training continues."""


class BatchFormat(Protocol):
    """What a batch is made of in a framework. A batch is opaque to all others."""

    def size(self, batch: Any) -> int | None:
        """Samples in a batch, None where it has no first dimension."""

    def bytes(self, batch: Any) -> int:
        """Memory that a batch holds."""

    def targets(self, batch: Any) -> Sequence[NDArray[Any]]:
        """What the loss holds the predictions against, on the host: an array for each output, none where unknown."""

    def kind(self, batch: Any) -> Any:
        """Something that is equal for batches of one structure, with arrays of the same types and ranks."""

    def head(self, batch: Any, count: int) -> Any:
        """The first samples of a batch."""

    def copied(self, batch: Any) -> Any:
        """The batch with its arrays as they are now: a loop may fill the same arrays with its next batch."""

    def first(self, data: Any, size: int, most: int) -> list[Any]:
        """The first batches of what a user passes as data, at most so many; arrays are cut to ``size`` samples.

        Raises:
            Refused: a batch cannot be taken without changing what training gets.
            TypeError: it is no data.
        """


class ModelAdapter(Protocol):
    """One model in its framework. No method changes the model, its random state or what training gets."""

    @property
    def batches(self) -> BatchFormat:
        """What its batches are made of."""

    @property
    def framework(self) -> str:
        """One of ``metadata.FRAMEWORKS``: in whose words the record is told."""

    @property
    def called(self) -> str:
        """See ``Manifest.called``."""

    def untracked(self) -> Sequence[str]:
        """BatchNorm layers that have no statistics at all, as PyTorch's may; not among ``layers``."""

    def not_read(self) -> Sequence[str]:
        """Sentences on parts of the model that keep statistics which are not recorded."""

    def left_out(self, layers: Sequence[ModelLayer]) -> Sequence[int]:
        """Indices of trainable layers whose weights the optimizer does not know: they were set so after compile."""

    def is_chief(self) -> bool:
        """Whether this process is the one that writes, in training on several."""

    def is_built(self, after_a_step: bool) -> bool:
        """Whether the layers exist. ``after_a_step``: a step was just made, so no further ones will come."""

    def layers(self) -> Sequence[ModelLayer]:
        """The built BatchNorm layers, each once, in the model's own order."""

    def reader(self, layers: Sequence[TrackedLayer]) -> StatisticsReader:
        """A reader of these layers, at least one."""

    def runner(self, layers: Sequence[TrackedLayer], segments: Segments) -> Runner:
        """Passes over the model.

        Raises:
            NotEvaluated: the model does not allow any.
        """

    def weights_mark(self) -> Array:
        """A few numbers that change when the weights do. Cheap: it is read at every epoch."""

    def learning_rate(self) -> float | None:
        """The optimizer's, None where the model has none."""

    def versions(self) -> Mapping[str, str]:
        """Package -> version, for the manifest: the framework's packages."""
