"""Notice what changes a model between two training steps: a callback, a teacher, weights that are put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.metadata import EventKind
from tb_bnlens.moments.recovery import Snapshot, WindowRecovery
from tb_bnlens.moments.segments import Segments

Array = NDArray[np.floating[Any]]

EVENTS = 8
"""Changes that are reported one by one; after them every second, fourth, eighth one."""
FARTHEST = 1e6
"""Stands for statistics that are not finite, which JSON cannot say."""
SPACING = 1.5
"""Between the steps of an epoch a look is taken at this factor of steps after the last one."""


@dataclass(frozen=True)
class Change:
    """What differs from the moment after the last step."""

    kind: EventKind
    """``OUTSIDE``: statistics alone were updated; ``REPLACED``: the weights differ too."""
    text: str
    layers: tuple[int, ...]
    amounts: tuple[float, ...]
    """How far the statistics of each of ``layers`` moved, in batch standard deviations."""


class Outside:
    """Compares the model after a step with the model before the next one.

    Args:
        weights_mark: see ``ModelAdapter.weights_mark``.
        recovery: constants of its BatchNorm layers.
        segments: their channels.
    """

    def __init__(self, weights_mark: Callable[[], Array], recovery: WindowRecovery, segments: Segments):
        self._weights, self._recovery, self._segments = weights_mark, recovery, segments
        self._marked: Array | None = None
        self._next_step = 0.0
        self.seen = 0
        """Changes so far."""

    def due(self, step: int) -> bool:
        """Whether to look before the coming step, where it does not begin an epoch."""
        if step < self._next_step and not self.seen:
            return False
        self._next_step = max(step + 1, SPACING * step)
        return True

    def mark(self) -> None:
        """Remember the weights after a step."""
        self._marked = self._weights()

    def change(self, then: Snapshot, now: Snapshot, of_step: NDArray[np.bool_]) -> Change | None:
        """What has changed since the statistics were ``then``; None where nothing has.

        Args:
            then: after the last step.
            now: before the next one.
            of_step: layers whose statistics the step itself may have moved on, [L].
        """
        marked, self._marked = self._marked, None
        moved = _differ(then.mean, now.mean) | _differ(then.spread, now.spread)
        layers = tuple(map(int, np.flatnonzero((self._segments.count(moved) > 0) & ~of_step)))
        weights = None if marked is None else bool(np.any(_differ(marked, self._weights())))
        if not (layers or weights):
            return None
        self.seen += 1
        apart = self._segments.rms(
            self._recovery.moving(now).distance(self._recovery.moving(then), self._recovery.epsilon)
        )
        amounts = tuple(round(float(np.nan_to_num(min(apart[i], FARTHEST), nan=FARTHEST)), 4) for i in layers)
        return Change(
            EventKind.REPLACED if weights else EventKind.OUTSIDE, _sentence(layers, amounts, weights), layers, amounts
        )

    def counted(self, layers: Sequence[int]) -> str:
        """Take note of updates beyond those of the training steps. Returns a sentence."""
        self.seen += 1
        return (
            f"{len(layers)} {'layer' if len(layers) == 1 else 'layers'} counted more updates than the training steps "
            "make: something else calls the model in training mode"
        )

    @property
    def to_report(self) -> bool:
        """Whether the last change is reported."""
        return self.seen <= EVENTS or not self.seen & (self.seen - 1)


def _differ(a: Array, b: Array) -> NDArray[np.bool_]:
    return np.asarray((a != b) & ~(np.isnan(a) & np.isnan(b)))


def _sentence(layers: Sequence[int], amounts: Sequence[float], weights: bool | None) -> str:
    if not layers:
        return "weights were replaced between two training steps; the moving statistics stayed"
    of = f"the moving statistics of {len(layers)} {'layer' if len(layers) == 1 else 'layers'}"
    if weights:
        return f"weights and {of} were replaced between two training steps"
    stayed = "" if weights is None else " while the weights stayed"
    return (
        f"{of} changed between two training steps{stayed}, by up to {max(amounts):.2g} batch standard deviations: "
        "something else calls the model with training=True or sets them"
    )
