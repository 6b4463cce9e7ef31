"""Passes of a check that are needed more than once, made once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tb_bnlens.capture.passes import Ending, Outcome, Runner
from tb_bnlens.moments.moments import Mask, Moments

MOST_BYTES = 64 * 2**20
"""Memory that predictions may take which wait for the pass that needs them."""


class Remembering:
    """A runner that keeps what passes on the model's own statistics give; see ``capture.passes.Runner``.

    Passes over other batches or with other statistics, and the runner's other members, are passed on.

    Args:
        runner: makes the passes.
        batches: whose passes are kept.
        moving: the model's moving statistics.
        size: memory that predictions hold, in bytes.
    """

    def __init__(self, runner: Runner, batches: Sequence[Any], moving: Moments, size: Callable[[Any], int]):
        self._runner, self._size, self._moving = runner, size, moving
        self._batches = {id(batch): batch for batch in batches}  # which keeps them alive, and so the ids theirs
        self._made: dict[Any, Outcome] = {}
        self._room = MOST_BYTES

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def inference(self, batch: Any, moving: Moments) -> Outcome:
        """As the runner does."""
        return self._kept("inference", batch, moving, lambda: self._runner.inference(batch, moving))

    def batch(self, batch: Any, moving: Moments, on_moving: Mask | None = None) -> Outcome:
        """As the runner does."""
        if on_moving is not None and not on_moving.any():
            on_moving = None
        which = None if on_moving is None else on_moving.tobytes()
        return self._kept(which, batch, moving, lambda: self._runner.batch(batch, moving, on_moving))

    def training(self, batch: Any) -> Outcome:
        """As the runner does."""
        return self._kept("training", batch, self._moving, lambda: self._runner.training(batch))

    def _kept(self, which: Any, batch: Any, moving: Moments, make: Callable[[], Outcome]) -> Outcome:
        key = which, id(batch)
        if moving is not self._moving or id(batch) not in self._batches:
            return make()
        made = self._made.get(key)
        if made is None:
            made = make()
            if isinstance(made.predictions, Ending):  # which the next pass ends
                return made
            size = self._size(made.predictions)
            if size <= self._room:
                self._room -= size
                self._made[key] = made
        return made
