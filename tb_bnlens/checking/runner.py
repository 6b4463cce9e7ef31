"""Passes of a check that are needed twice, made once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tb_bnlens.capture.passes import Outcome, Runner
from tb_bnlens.moments.moments import Mask, Moments

MOST_BYTES = 64 * 2**20
"""Memory that predictions may take which wait for the pass that needs them."""


class Ahead:
    """A runner that makes passes ahead; see ``capture.passes.Runner``, whose other members it passes on.

    Args:
        runner: makes the passes.
        size: memory that predictions hold, in bytes.
    """

    def __init__(self, runner: Runner, size: Callable[[Any], int]):
        self._runner, self._size = runner, size
        self._made: dict[Any, Outcome] = {}
        self._room = MOST_BYTES

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def batch(self, batch: Any, moving: Moments, on_moving: Mask | None = None) -> Outcome:
        """As the runner does, but for a pass that was made ahead, which is given out once."""
        made = self._made.pop(_key(batch, moving, on_moving), None)
        return self._runner.batch(batch, moving, on_moving) if made is None else made

    def make_ahead(self, batches: Sequence[Any], moving: Moments, on_moving: Mask) -> list[Outcome]:
        """The pass ``batch`` over some batches, kept for the next one that asks for the same."""
        outcomes = [self._runner.batch(batch, moving, on_moving) for batch in batches]
        for batch, outcome in zip(batches, outcomes, strict=True):
            size = self._size(outcome.predictions)
            if size <= self._room:
                self._room -= size
                self._made[_key(batch, moving, on_moving)] = outcome
        return outcomes


def _key(batch: Any, moving: Moments, on_moving: Mask | None) -> Any:
    return id(batch), id(moving), None if on_moving is None else on_moving.tobytes()
