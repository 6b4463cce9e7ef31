"""The batches that may be probed: what the user passes, the newest of training, and a reservoir of earlier ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tb_bnlens.capture.adapter import BatchFormat
from tb_bnlens.capture.guard import LOSSES, VALIDATION, Guard
from tb_bnlens.capture.reservoir import Kept, Reservoir, fewer

VALIDATION_BATCHES = 8
"""Batches of validation data that the final measurement takes; a probe takes the first of them."""
OTHERS = 8
"""Kept batches that an interim probe recalibrates with: their mean statistics have a third of a batch's noise."""
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
        form: what a batch is made of.
        probe_data: what is probed instead of training batches, if anything; see ``BatchFormat.first``.
        validation_data: what is probed besides, if anything.
        guard: keeps a fault in the user's data inside.
    """

    def __init__(self, form: BatchFormat, probe_data: Any, validation_data: Any, guard: Guard):
        self._form = form
        self._data = {"probe": probe_data, "validation": validation_data}
        self._loaded: dict[str, list[Any]] = {}
        self._guard = guard
        self._newest: Any = None
        self.reservoir = Reservoir(form.size, form.bytes)
        """Batches of the last stretch of training."""
        self._part = 1.0
        self._turn = 0
        self.usual_size: int | None = None
        """Samples in a usual training batch, None until one was seen."""

    @property
    def from_training(self) -> bool:
        """Whether training batches are probed."""
        return self._data["probe"] is None

    @property
    def argument(self) -> str:
        """The argument whose data are probed, empty where training batches are."""
        return "" if self.from_training else "probe_data"

    @property
    def from_training_whole(self) -> bool:
        """Whether training batches are probed, and not a part of them for want of memory."""
        return self.from_training and self._part == 1.0

    def meet(self, batch: Any) -> None:
        """Take the newest training batch."""
        self._newest = batch
        if self.usual_size is None:
            self.usual_size = self._form.size(batch)
            # Earlier fits may have had targets for another loss, which cannot be taken of them now.
            kind = self._form.kind(batch)
            self.reservoir.keep_only(lambda kept: self._form.kind(kept) == kind)

    def meet_usual(self, batch: Any) -> bool:
        """Take the newest training batch if it has as many samples as a usual one. Returns whether it has."""
        if self._form.size(batch) != self.usual_size:
            return False
        self._newest = batch
        return True

    def collect(self, made: int, batch: Any, steps: int) -> None:
        """Take the newest training batch, on which ``steps`` steps follow the ``made`` ones, and keep it if wanted."""
        if self.from_training and self.reservoir.wants(made, steps):
            batch = self._form.copied(batch)
            self.reservoir.offer(made, [batch], steps)
        self.meet(batch)

    def settle(self) -> None:
        """Training is over, and the arrays of the newest batch may be in other use: probe one that was kept."""
        kept = self.reservoir.batches()
        if kept and self.from_training:
            self.meet(kept[-1].batch)

    def is_short(self, batch: Any) -> bool:
        """Whether a batch has fewer samples than a usual one."""
        return self.usual_size is not None and (self._form.size(batch) or 0) < self.usual_size

    def to_probe(self) -> Any:
        """The batch to probe, None while there is none."""
        return self._cut(self._newest) if self.from_training else self._of_user("probe")

    def validation(self) -> Any:
        """The batch of validation data, None where there is none or its losses are given up."""
        return self._of_user("validation") if self._guard.works(VALIDATION) else None

    def validation_to_judge(self) -> list[tuple[Any, int]]:
        """The validation batches of the final measurement, with their samples."""
        if self.validation() is None:
            return []
        found = [self._cut(batch) for batch in self._loaded["validation"]]
        return [(batch, self._form.size(batch) or 1) for batch in found]

    def others(self) -> list[Any]:
        """Some training batches of the usual size other than the newest, spread over the last stretch."""
        kept = [k for k in self.reservoir.batches() if k.size == self.usual_size and k.batch is not self._newest]
        return [self._cut(k.batch) for k in fewer(kept, OTHERS)]

    def to_judge(self) -> list[Kept]:
        """The batches of the final judgement: those of the reservoir, or what the user passes to be probed."""
        if self.from_training:
            kept = [replace(k, batch=self._cut(k.batch)) for k in self.reservoir.batches()]
        else:
            batch = self._of_user("probe")
            kept = [] if batch is None else [Kept(batch, 0, 1)]
        return [replace(k, size=self._form.size(k.batch) or 1) for k in kept]

    def to_probe_together(self, others: Sequence[Any]) -> list[Any]:
        """The batch to probe, and where training batches are small some of the others, which are normalized apart."""
        batch = self.to_probe()
        if batch is None or not self.from_training or not self.usual_size or not others:
            return [] if batch is None else [batch]
        count = min(math.ceil(LEAST_SAMPLES / self.usual_size) - 1, len(others))
        # Not the same ones in probes that follow each other, whose spread is to tell how sure their median is.
        self._turn += count
        return [batch, *(others[(self._turn + i) % len(others)] for i in range(count))]

    def back_off(self) -> bool:
        """Probe half as much from now on, and let go of what was kept. Returns whether there was less to try."""
        self.reservoir.clear()
        self._part /= 2
        return self._part >= SMALLEST_PART

    def _of_user(self, which: str) -> Any:
        data = self._data[which]
        if data is not None and which not in self._loaded:
            self._loaded[which] = []
            with self._guard(LOSSES if which == "probe" else VALIDATION, f"{which}_data"):
                most = VALIDATION_BATCHES if which == "validation" else 1
                self._loaded[which] = self._form.first(data, self.usual_size or USUAL_SIZE, most)
        loaded = self._loaded.get(which)
        return self._cut(loaded[0]) if loaded else None

    def _cut(self, batch: Any) -> Any:
        size = None if batch is None or self._part == 1.0 else self._form.size(batch)
        if size is None:
            return batch
        count = max(round(self._part * size), 1)
        return self._form.head(batch, count)
