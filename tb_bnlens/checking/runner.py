"""The passes of a check, none of them made twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from tb_bnlens.capture.keras_runner import KerasRunner
from tb_bnlens.capture.passes import Mask, Moments, Outcome
from tb_bnlens.capture.probe import Probe

MOST_BYTES = 64 * 2**20
"""Memory that predictions may take which wait for the pass that needs them."""


class CheckRunner(KerasRunner):
    """Passes over one Keras model, some of them made ahead; see ``passes.Runner``.

    Args:
        model: a built Keras model.
        probe: its forward passes.
        loss: ``loss(y_true, y_pred)`` for models that are not compiled with one.
    """

    def __init__(self, model: Any, probe: Probe, loss: Callable[..., Any] | None = None):
        super().__init__(model, probe, loss)
        self._made: dict[Any, Outcome] = {}
        self._room = MOST_BYTES

    def batch(self, batch: Any, moving: Moments, on_moving: Mask) -> Outcome:
        """Every channel on the batch's statistics, but for the mask's; all else in inference mode."""
        known = self._made.pop(_key(batch, moving, on_moving), None)
        return super().batch(batch, moving, on_moving) if known is None else known

    def made_ahead(self, batches: Sequence[Any], moving: Moments, on_moving: Mask) -> list[Outcome]:
        """The pass ``batch`` over some batches, which is not made again when it is asked for the next time."""
        outcomes = []
        for batch in batches:
            outcome = super().batch(batch, moving, on_moving)
            outcomes.append(outcome)
            size = sum(getattr(leaf, "nbytes", 0) for leaf in keras.tree.flatten(outcome.predictions))
            if size <= self._room:
                self._room -= size
                self._made[_key(batch, moving, on_moving)] = outcome
        return outcomes


def _key(batch: Any, moving: Moments, on_moving: Mask) -> Any:
    return id(batch), id(moving), on_moving.tobytes()
