"""A bounded, even sample of the training batches of the last stretch of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

MOST = 24
"""Batches that are kept at most."""
MOST_EARLY = 6
"""The same where a run with a known plan ends far before its end: a look at a batch costs about a millisecond. They are
of all its steps, which takes half as many looks as those of the last half."""
LEAST = 2
LAST_OF_STREAM = 3
"""Last batches of a run of one epoch that are kept: its data may have changed shortly before the end."""
KEPT_BYTES = 64 * 2**20
"""Memory that the kept batches may take. A single batch is kept whatever its size."""
WITHIN_EPOCH = (math.sqrt(5.0) - 1.0) / 2.0
"""Multiples of the golden ratio fill the unit interval most evenly, modulo 1 and at any length."""
FROM_EPOCH_TO_EPOCH = math.sqrt(2.0) - 1.0
"""Independent of the golden ratio, so that an epoch shows what the epochs before it have left out."""


@dataclass(frozen=True)
class Kept:
    """A training batch that was kept."""

    batch: Any
    step: int
    """Number of the step that was made on it, from 1."""
    size: int
    """Its samples."""
    phase: int = 0
    """The ``fit`` (or part of a record) that it is from."""
    rank: float = 0.0
    """Between 0 and 1. Those of the lowest ranks are spread over the steps and over the positions in an epoch."""
    bytes: int = 0
    """Memory that it takes, counted once: to count it takes as long as to look at the batch."""


def fewer(kept: Sequence[Kept], most: int) -> list[Kept]:
    """At most so many of the kept batches, spread as all of them are, in the same order."""
    chosen = sorted(range(len(kept)), key=lambda i: kept[i].rank)[:most]
    return [kept[i] for i in sorted(chosen)]


class Reservoir:
    """Keeps batches of evenly spaced steps of the last stretch of training.

    Each step has a rank between 0 and 1, and the batches of the lowest ranks are kept. Any share of the ranks makes
    steps that are spread evenly, over the stretch and over the positions in an epoch: where the data come in the same
    order in every epoch, the kept batches are of different parts of them. Ranks depend on the numbers of the steps
    alone, so two identical trainings keep the same batches, however busy the machine is.

    The last stretch is the last half of the steps or the last epoch, whichever is longer; longer yet, up to all steps,
    while few batches are taken because the run is to be far longer.

    Args:
        size_of: samples in a batch, None where it has no first dimension.
        bytes_of: memory of a batch, in bytes.
    """

    def __init__(self, size_of: Callable[[Any], int | None], bytes_of: Callable[[Any], int]):
        self._size_of, self._bytes_of = size_of, bytes_of
        self._kept: list[Kept] = []
        self._room = MOST
        self._share = 1.0
        self._searched = (0, 0)
        # No step between these two numbers is wanted, and the second one is.
        self.planned_steps: int | None = None
        """Steps that training will make in all, where known: early looks are spared then."""
        self.epoch_steps: int | None = None
        """Steps of an epoch, where known."""
        self.phase = 0
        """Which ``fit`` the coming batches are from."""

    @property
    def comes_back_after(self) -> int:
        """Steps after which the same data come again; 0 where they do not, or nobody said so."""
        return 0 if self.is_stream else self.epoch_steps or 0

    @property
    def is_stream(self) -> bool:
        """Whether the plan has one epoch, so that nothing comes again."""
        return self.planned_steps is not None and self.planned_steps <= (self.epoch_steps or 0)

    def resume(self, earlier: Sequence[Kept], phase: int) -> None:
        """Go on with what earlier fits kept, whose steps are counted on."""
        self._kept, self.phase = list(earlier), phase

    def next_step(self, made: int) -> int:
        """The next step whose batch is wanted, when ``made`` steps have been made."""
        since, found = self._searched
        if not since <= made < found:
            found = next(step for step in count(made + 1) if self._rank(step) < self._share)
            self._searched = made, found
        return found

    def wants(self, made: int, steps: int = 1) -> bool:
        """Whether the batch of one of the coming ``steps`` is wanted."""
        return self.next_step(made) <= made + steps

    def offer(self, made: int, batches: list[Any], steps: int = 1) -> None:
        """Keep what is wanted of the batches that follow the ``made`` steps; each stands for so many ``steps``."""
        for batch in batches:
            step = self.next_step(made)
            made += steps
            if step <= made:
                size, held = self._size_of(batch) or 1, self._bytes_of(batch)
                self._keep(Kept(batch, step, size, self.phase, self._rank(step), held))

    def batches(self) -> list[Kept]:
        """What is kept of the last stretch, in the order of training."""
        return list(self._kept)

    def keep_only(self, wanted: Callable[[Any], bool]) -> None:
        """Let go of the batches that are not wanted."""
        self._kept = [kept for kept in self._kept if wanted(kept.batch)]

    def clear(self) -> None:
        """Let go of all batches: memory is short."""
        self._kept = []
        self._room = max(self._room // 2, LEAST)

    def _keep(self, new: Kept) -> None:
        # A record can start again at an earlier step.
        self._kept = [k for k in self._kept if k.step < new.step] + [new]
        largest = max(k.bytes for k in self._kept)
        room = min(self._room, max(KEPT_BYTES // max(largest, 1), 1))
        self._share, self._searched = self._share_at(new.step, room), (0, 0)
        stretch = max(self._stretch(new.step), min(room, MOST_EARLY) / self._share)
        recent = [k for k in self._kept if k.step > new.step - stretch]
        self._kept = fewer([k for k in recent if k.rank < self._share], room)

    def _share_at(self, step: int, room: int) -> float:
        """Share of the steps that fills the room where training ends by its plan, or a part of it where it ends now."""
        planned = max(self.planned_steps or step, step)
        return max(room / self._stretch(planned), min(room, MOST_EARLY) / step)

    def _stretch(self, step: int) -> float:
        """Steps of the last stretch of a run of so many steps."""
        return max(step / 2, min(self.epoch_steps or 0, step))

    def _rank(self, step: int) -> float:
        if self.is_stream and 0 <= (self.planned_steps or 0) - step < LAST_OF_STREAM:
            return 0.0
        epoch, position = divmod(step - 1, self.epoch_steps) if self.epoch_steps else (0, step - 1)
        return math.modf(position * WITHIN_EPOCH + epoch * FROM_EPOCH_TO_EPOCH)[0]
