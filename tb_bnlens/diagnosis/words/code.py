"""Code that is printed: it runs as printed, given ``model``, and ``data`` where batches are needed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.diagnosis.words.phrases import as_set, metrics
from tb_bnlens.history import Manifest
from tb_bnlens.metadata import FLAX, KERAS, KERAS_2, TORCH

UNDO = "# Its undo() puts the old statistics back.\n"
RECALIBRATE = f"""\
import tb_bnlens

{UNDO}tb_bnlens.recalibrate(model, data, batches=200)
"""


RECALIBRATE_FROZEN = RECALIBRATE.replace("batches=200", "batches=200, frozen=True")
"""Frozen layers too."""


def rescue(f: Facts, severity: Severity) -> str:
    """Recalibrate, where there is harm and that was measured to undo some of it; else nothing."""
    helps = f.parts is not None and f.stale.significant
    return RECALIBRATE if helps and severity > Severity.INFO else ""


def reaching(f: Facts, layers: Sequence[int], text: str) -> str:
    """With ``frozen=True`` where recalibrating reaches none of these layers, or of all, without it."""
    of_constant = bool(f.constant[list(layers) or slice(None)].all()) and f.has_layers
    return text.replace("batches=200)", "batches=200, frozen=True)") if of_constant else text


def spoilt(f: Facts, name: str) -> str:
    """Why other statistics are no rescue although they lower the loss."""
    return (
        f" New statistics alone are no rescue: they give {', '.join(metrics(f, name))} instead of "
        f"{', '.join(metrics(f, 'inference'))}, since the layers behind have learned with the old ones. Train those "
        "again afterwards."
    )


def set_momentum(f: Facts, momentum: float) -> str:
    """Set the momentum of every BatchNorm layer, the share that is kept."""
    when = "# Before model.compile: a traced step keeps the old momentum.\n" if f.in_keras else ""
    return f"""\
import tb_bnlens

{when}tb_bnlens.set_momentum(model, {as_set(f, momentum):g})
"""


def of_framework(text: str, manifest: Manifest) -> str:
    """Code for Keras 3 in the names of a framework: its package, and its remedies in a module of ``tb_bnlens``."""
    framework = manifest.framework
    if framework == KERAS:
        return text
    if framework == KERAS_2:
        text = text.replace("keras.ops.concatenate([real, generated])", "tf.concat([real, generated], axis=0)")
        return re.sub(r"(?<![\w.])keras(?=[.\n])", "tf_keras", text)
    for name in ("recalibrate", "set_momentum"):
        text = text.replace(f"tb_bnlens.{name}(", f"tb_bnlens.{framework}.{name}(")
    if manifest.called:
        text = text.replace("batches=200", "batches=200, forward=forward")
    return re.sub(r"^(# )?import tb_bnlens(?=[\n;])", rf"\1import tb_bnlens.{framework}", text, flags=re.MULTILINE)


def told(f: Facts, *, keras: str, torch: str, flax: str) -> str:
    """The text for users of the framework that was recorded."""
    return {KERAS: keras, KERAS_2: keras, TORCH: torch, FLAX: flax}[f.manifest.framework]


def check(f: Facts, more: str = "") -> str:
    """The call that measures the model in hand, with more arguments: ", batches=200"."""
    return told(
        f,
        keras=f"tb_bnlens.check(model, data{more})",
        torch=f"tb_bnlens.torch.check(model, data, loss=...{more})",
        flax=f"tb_bnlens.flax.check(model, data, loss=...{more})",
    )


def load_statistics(f: Facts) -> str:
    """Load them with the weights, as a comment."""
    return told(
        f,
        keras="# Load the moving statistics with the weights: they are weights of a layer that are not trainable.\n"
        "#   base.load_weights(path)                  # all weights, or\n"
        "#   model.set_weights(other.get_weights())   # not only trainable_variables\n",
        torch="# Load the running statistics with the weights: they are buffers, in the state_dict and not among the "
        "parameters.\n"
        "#   model.load_state_dict(torch.load(path))   # strict=False would hide that they are missing\n",
        flax="# Load the running statistics with the weights: they are nnx.BatchStat, and not nnx.Param.\n"
        "#   nnx.update(base, *nnx.state(other, nnx.Param, nnx.BatchStat))\n",
    )


def _loader(size: int) -> str:
    return (
        "import torch\n\n"
        f"data = torch.utils.data.DataLoader(data.dataset, batch_size={size}, shuffle=True, drop_last=True)\n"
    )


def _batches(size: int) -> str:
    return (
        "import numpy as np\n\n"
        "# At the start of each epoch; here `data` is the whole arrays (x, y):\n"
        f"order = np.random.permutation(len(data[0]))[: len(data[0]) // {size} * {size}].reshape(-1, {size})\n"
        "data = [tuple(part[rows] for part in data) for rows in order]\n"
    )


def larger_batches(f: Facts, size: int, groups: int = 8) -> str:
    """Batches of another size, or a normalization over so many groups of channels in their place."""
    larger = "# Larger batches where memory allows (gradient accumulation does not count)"
    other = "# Or normalize without batches: {} in place of each {}.\n".format
    return told(
        f,
        keras=f"{larger}:\n#   model.fit(x, y, batch_size={size})\n"
        "# or, where `data` is a tf.data pipeline of batches:\n"
        f"data = data.unbatch().batch({size}, drop_remainder=True)\n"
        + other(f"keras.layers.GroupNormalization(groups={groups})", "BatchNormalization"),
        torch=f"{larger}:\n{_loader(size)}" + other(f"torch.nn.GroupNorm({groups}, channels)", "BatchNorm module"),
        flax=f"{larger}:\n{_batches(size)}" + other(f"nnx.GroupNorm(channels, {groups}, rngs=rngs)", "nnx.BatchNorm"),
    )


def at_layers(f: Facts, access: Sequence[str], statement: str) -> str:
    """A statement for each of some layers, e.g. ``layer.trainable = True``; access expressions as recorded."""
    if (any(not a for a in access) or not access) and f.in_torch:
        return f"for layer in model.modules():\n    if hasattr(layer, 'running_var'):\n        {statement}\n"
    if any(not a for a in access) or not access:
        return f"for layer in model.layers:\n    {statement}\n"
    listed = ",\n    ".join(access)
    return f"for layer in [\n    {listed},\n]:\n    {statement}\n"


def set_learning_rate(f: Facts, rate: float | None, scheduled: bool = False) -> str:
    """Lower the learning rate, to a value where one can be derived.

    A schedule takes no value (Keras raises), so where the rate has changed during the run another one is put in its
    place, which the traced step does not know of.
    """
    if f.in_flax:
        return (
            "# Give the optimizer a smaller learning rate where it is made:\n"
            "#   optimizer = nnx.Optimizer(model, optax.adam(0.1 * learning_rate), wrt=nnx.Param)\n"
        )
    if f.in_torch:
        value = f"{rate:.1g}" if rate else "group['lr'] * 0.1"
        also = "# A scheduler sets the rate again: give it a smaller one.\n" if scheduled else ""
        return f"{also}for group in optimizer.param_groups:\n    group['lr'] = {value}\n"
    value = f"{rate:.1g}" if rate else "float(model.optimizer.learning_rate) * 0.1"
    if not scheduled:
        return f"model.optimizer.learning_rate = {value}\n"
    return f"""\
import keras

schedule = keras.optimizers.schedules.ExponentialDecay({value}, 10_000, 0.9)
model.optimizer.learning_rate = schedule
# Add your metrics. Without this the traced step keeps the old schedule.
model.compile(optimizer=model.optimizer, loss=model.loss)
"""


def shuffle(f: Facts, batch_size: int | None) -> str:
    """Shuffle samples across batches."""
    size = batch_size or 32
    return told(
        f,
        keras=f"# Shuffle across the whole data set:\n#   model.fit(x, y, batch_size={size}, shuffle=True)\n"
        "# or, where `data` is a tf.data pipeline of batches:\n"
        f"data = data.unbatch().shuffle(10_000).batch({size}, drop_remainder=True)\n",
        torch=f"# Shuffle across the whole data set, where an item of `data.dataset` is a row:\n{_loader(size)}",
        flax=f"# Shuffle across the whole data set:\n{_batches(size)}",
    )
