"""Code that is printed: it runs as printed, given ``model``, and ``data`` where batches are needed."""

from __future__ import annotations

from collections.abc import Sequence

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.severity import Severity

RECALIBRATE = """\
import tb_bnlens

tb_bnlens.recalibrate(model, data, batches=200)  # what it returns has an undo()
"""


RECALIBRATE_FROZEN = RECALIBRATE.replace("batches=200", "batches=200, frozen=True")
"""Frozen layers too."""


def rescue(f: Facts, severity: Severity) -> str:
    """Recalibrate, where there is harm and that was measured to undo some of it; else nothing."""
    helps = f.parts is not None and f.stale.significant
    return RECALIBRATE if helps and severity > Severity.INFO else ""


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


def set_learning_rate(rate: float | None, scheduled: bool = False) -> str:
    """Lower the learning rate, to a value where one can be derived.

    A schedule takes no value (Keras raises), so where the rate has changed during the run another one is put in its
    place, which the traced step does not know of.
    """
    value = f"{rate:.1g}" if rate else "float(model.optimizer.learning_rate) * 0.1"
    if not scheduled:
        return f"model.optimizer.learning_rate = {value}\n"
    return f"""\
import keras

model.optimizer.learning_rate = keras.optimizers.schedules.ExponentialDecay({value}, 10_000, 0.9)
model.compile(optimizer=model.optimizer, loss=model.loss)  # and your metrics; the traced step keeps the old schedule
"""


def shuffle(batch_size: int | None) -> str:
    """Shuffle samples across batches."""
    return (
        "# Shuffle across the whole data set before batching; `data` is the tf.data pipeline of batches:\n"
        f"data = data.unbatch().shuffle(10_000).batch({batch_size or 32}, drop_remainder=True)\n"
    )
