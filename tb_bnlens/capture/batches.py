"""The batches that may be probed: what the user passes, the newest of training, and some from before it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import keras

from tb_bnlens.capture.data import batch_bytes, batch_size, first_batch
from tb_bnlens.capture.guard import LOSSES, Guard

KEPT_BATCHES = 9
"""Training batches that are kept for recalibration at the present weights: the probed one and eight others, whose
mean statistics have a third of a batch's noise."""
KEPT_BYTES = 64 * 2**20
"""And no more than this much of them."""
LEAST_SAMPLES = 8
"""Samples that a loss is taken over, where training batches are kept: that of a single image says more about the image
than about the statistics, and no median over some probes makes up for it."""
USUAL_SIZE = 32
"""Samples of arrays that make a batch, where no training batch was seen; Keras' own default."""
SMALLEST_PART = 1 / 8
"""After an out-of-memory half of the batch is probed, and so on down to this part of it."""


class Batches:
    """Holds batches for the probe, and no more of them than it has room for.

    Args:
        probe_data: what is probed instead of training batches, if anything; see ``data.first_batch``.
        validation_data: what is probed besides, if anything.
        guard: keeps a fault in the user's data inside.
    """

    def __init__(self, probe_data: Any, validation_data: Any, guard: Guard):
        self._data = {"probe": probe_data, "validation": validation_data}
        self._loaded: dict[str, Any] = {}
        self._guard = guard
        self._newest: Any = None
        self._kept: deque[Any] = deque(maxlen=KEPT_BATCHES)
        self._part = 1.0
        self._turn = 0
        self.earlier: list[Any] = []
        """Batches of earlier fits, see ``remember``."""
        self.usual_size: int | None = None
        """Samples in a usual training batch, None until one was seen."""

    @property
    def from_training(self) -> bool:
        """Whether training batches are probed."""
        return self._data["probe"] is None

    @property
    def from_training_whole(self) -> bool:
        """Whether training batches are probed, and not a part of them for want of memory."""
        return self.from_training and self._part == 1.0

    def meet(self, batch: Any, keep: bool) -> None:
        """Take the newest training batch, and keep it for later if told to."""
        self._newest = batch
        if self.usual_size is None:
            self.usual_size = batch_size(batch)
        if keep:
            if sum(map(batch_bytes, self._kept)) + batch_bytes(batch) > KEPT_BYTES:
                self._kept.clear()
            self._kept.append(batch)

    def to_probe(self) -> Any:
        """The batch to probe, None while there is none."""
        return self._cut(self._newest) if self.from_training else self._of_user("probe")

    def validation(self) -> Any:
        """The batch of validation data, None where there is none."""
        return self._of_user("validation")

    def others(self) -> list[Any]:
        """Training batches other than the newest."""
        return [self._cut(batch) for batch in self._kept if batch is not self._newest]

    def to_probe_together(self, others: Sequence[Any]) -> list[Any]:
        """The batch to probe, and where training batches are small some of the others, which are normalized apart."""
        batch = self.to_probe()
        if batch is None or not self.from_training or not self.usual_size or not others:
            return [] if batch is None else [batch]
        count = min(math.ceil(LEAST_SAMPLES / self.usual_size) - 1, len(others))
        # Not the same ones in probes that follow each other, whose spread is to tell how sure their median is.
        self._turn += count
        return [batch, *(others[(self._turn + i) % len(others)] for i in range(count))]

    def remember(self, earlier: Sequence[Any]) -> None:
        """Hold batches that earlier fits of the same network were trained on."""
        self.earlier = list(earlier)

    def kept(self) -> list[Any]:
        """Training batches of this fit and of earlier ones, oldest first, for ``remember`` in a later one."""
        return [*self.earlier, *self._kept][-2 * KEPT_BATCHES :]

    def back_off(self) -> bool:
        """Probe half as much from now on, and let go of what was kept. Returns whether there was less to try."""
        self._kept.clear()
        self._part /= 2
        return self._part >= SMALLEST_PART

    def _of_user(self, which: str) -> Any:
        data = self._data[which]
        if data is not None and which not in self._loaded:
            self._loaded[which] = None
            with self._guard(LOSSES if which == "probe" else "the losses on validation data"):
                self._loaded[which] = first_batch(data, self.usual_size or USUAL_SIZE)
        return self._cut(self._loaded.get(which))

    def _cut(self, batch: Any) -> Any:
        size = None if batch is None or self._part == 1.0 else batch_size(batch)
        if size is None:
            return batch
        count = max(round(self._part * size), 1)
        return keras.tree.map_structure(lambda leaf: leaf if leaf is None else leaf[:count], batch)
