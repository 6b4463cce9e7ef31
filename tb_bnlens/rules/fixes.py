"""The code that fixes print: it runs as printed given ``model``, and ``data`` where batches are needed."""

from __future__ import annotations

from collections.abc import Sequence

RECALIBRATE = """\
import tb_bnlens

with tb_bnlens.recalibrate(model, data, batches=200):
    model.evaluate(data)
"""


def set_momentum(momentum: float) -> str:
    """Set the momentum of every BatchNorm layer."""
    return f"""\
import tb_bnlens

tb_bnlens.set_momentum(model, {momentum:g})  # before model.compile; the traced step keeps the old one
"""


def at_layers(access: Sequence[str], statement: str) -> str:
    """A statement for each of some layers, e.g. ``layer.trainable = True``; access expressions as recorded."""
    if any(not a for a in access) or not access:
        return f"for layer in model.layers:\n    {statement}\n"
    listed = ",\n    ".join(access)
    return f"for layer in [\n    {listed},\n]:\n    {statement}\n"


def set_learning_rate(rate: float | None) -> str:
    """Lower the learning rate, to a value where one can be derived."""
    value = f"{rate:.1g}" if rate else "model.optimizer.learning_rate * 0.1"
    return f"model.optimizer.learning_rate = {value}\n"
