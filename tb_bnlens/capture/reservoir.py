"""A bounded, even sample of the training batches of the last stretch of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

MOST = 24
"""Batches that are kept at most. Between half of them and all of them lie in the last stretch at any time."""
MOST_EARLY = 8
"""The same while a run with a known plan is far from its end: a look at a batch costs about a millisecond."""
LEAST = 2
KEPT_BYTES = 64 * 2**20
"""Memory that the kept batches may take. A single batch is kept whatever its size."""
SEED = 0x9E3779B97F4A7C15


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


class Reservoir:
    """Keeps batches of evenly spaced, randomly chosen steps of the last stretch of training.

    The steps are cut into strata of one width, and one step of each stratum is drawn. Where more than ``MOST``
    strata lie in the last stretch, the width doubles and one of two neighbours is dropped. Which steps are drawn
    depends on their numbers alone, so two identical trainings keep the same batches, however busy the machine is.

    The last stretch is the last half of the steps or the last epoch, whichever is longer.

    Args:
        size_of: samples in a batch, None where it has no first dimension.
        bytes_of: memory of a batch, in bytes.
    """

    def __init__(self, size_of: Callable[[Any], int | None], bytes_of: Callable[[Any], int]):
        self._size_of, self._bytes_of = size_of, bytes_of
        self._kept: list[Kept] = []
        self._width = 1
        self._room = MOST
        self.planned_steps: int | None = None
        """Steps that training will make in all, where known: early looks are spared then."""
        self.epoch_steps: int | None = None
        """Steps of an epoch, where known."""
        self.phase = 0
        """Which ``fit`` the coming batches are from."""

    def resume(self, earlier: Sequence[Kept], phase: int) -> None:
        """Go on with what earlier fits kept, whose steps are counted on."""
        self._kept, self.phase = list(earlier), phase

    def next_step(self, made: int) -> int:
        """The next step whose batch is wanted, when ``made`` steps have been made."""
        drawn = _draw(self._width, made // self._width)
        return drawn if drawn > made else _draw(self._width, made // self._width + 1)

    def wants(self, made: int, steps: int = 1) -> bool:
        """Whether the batch of one of the coming ``steps`` is wanted."""
        return self.next_step(made) <= made + steps

    def offer(self, made: int, batches: list[Any], steps: int = 1) -> None:
        """Keep what is wanted of the batches that follow the ``made`` steps; each stands for so many ``steps``."""
        for batch in batches:
            step = self.next_step(made)
            made += steps
            if step <= made:
                self._keep(Kept(batch, step, self._size_of(batch) or 1, self.phase))

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
        largest = max(self._bytes_of(k.batch) for k in self._kept)
        room = min(self._room, max(KEPT_BYTES // max(largest, 1), 1), self._planned_room())
        stretch = max(new.step / 2, min(self.epoch_steps or 0, new.step))
        while stretch / self._width > room:
            self._width *= 2
        self._kept = [
            k
            for k in self._kept
            if k.step > new.step - stretch and k.step == _draw(self._width, (k.step - 1) // self._width)
        ]

    def _planned_room(self) -> int:
        early = self.planned_steps is not None and self._width < self.planned_steps / (4 * MOST)
        return MOST_EARLY if early else MOST


def _draw(width: int, stratum: int) -> int:
    """The step drawn of a stratum: one of its two halves' draws, so that doubling the width drops every other."""
    while width > 1:
        stratum = 2 * stratum + (_mix(width ^ (stratum << 20)) & 1)
        width //= 2
    return stratum + 1


def _mix(value: int) -> int:
    # SplitMix64 (Steele et al. 2014), whose low bit is as random as any.
    value = (value + SEED) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)
