"""Measure the running statistics again at the present weights, with undo."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any

import jax.numpy as jnp

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.frameworks.flax.adapter import FlaxModel, as_in_training
from tb_bnlens.frameworks.flax.batches import batches_of, samples
from tb_bnlens.frameworks.flax.layers import FlaxLayer, StatisticsReader, find_layers
from tb_bnlens.frameworks.flax.runner import Forward
from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.segments import Segments
from tb_bnlens.remedies.measured import Recalibration, measure, replaced, require_arguments

IN_EVAL_MODE = "it is in eval mode"


def recalibrate(
    model: Any,
    data: Any,
    batches: int = 200,
    *,
    frozen: bool = False,
    pool: str = "batches",
    batch_size: int = 32,
    skip_non_finite: bool = False,
    forward: Forward | None = None,
) -> Recalibration:
    """Replace the running statistics by statistics of ``data`` at the present weights (PreciseBN).

    ::

        with tb_bnlens.flax.recalibrate(model, (x, y), batches=200) as change:
            evaluate(model)      # with the new statistics
            change.keep()        # without this, the block restores the old ones

        tb_bnlens.flax.recalibrate(model, (x, y))   # without ``with``, until .undo()

    Use *training* data, in batches like those of training. Every batch runs through a copy of the model once, and each
    layer normalizes with the statistics of that batch. Dropout is off, as it is at inference.

    Args:
        model: an ``nnx.Module``.
        data: an iterable of batches, each ``x`` or ``(x, y)``; or arrays ``x`` or ``(x, y)``, which are split into
            batches. Only ``x`` is used.
        batches: the largest number of batches to use.
        frozen: also replace the statistics of layers that are in eval mode while others are not. By default they keep
            theirs, and later layers are measured with those in effect. A model that is in eval mode as a whole has all
            of them replaced.
        pool: how the variances of the batches, [C] each, are combined. ``"batches"`` averages the batch variances, as
            training does. ``"samples"`` pools the second moments: the variance over all samples.
        batch_size: the batch size for arrays.
        skip_non_finite: leave out batches that give statistics that are not finite, with a warning, instead of raising.
        forward: ``forward(model, x, training)``, see ``Recorder``.

    Returns:
        A ``Recalibration`` with ``undo()`` and ``keep()``.

    Raises:
        ValueError: the model is not an nnx module, it has no BatchNorm layer to recalibrate, the data have no samples
            or give statistics that are not finite, ``pool`` is unknown, or ``batches`` is below 1.
        RuntimeError: batch statistics cannot be measured in this model. The message gives the reason.

    Warns:
        UserWarning: the data have fewer than 100 samples.
    """
    require_arguments(batches, pool)
    adapter = FlaxModel(as_in_training(model), forward=forward)
    layers = find_layers(model)
    if not layers:
        raise ValueError(f"The model {type(model).__name__} has no nnx.BatchNorm")
    snapshot = StatisticsReader(layers).read()
    segments = Segments([layer.channels for layer in layers])
    sized = ((batch, samples(batch) or 1) for batch in islice(batches_of(data, batch_size), batches))
    try:
        runner = adapter.runner(adapter.layers(), segments)
        found = measure(
            runner, layers, Moments(snapshot.mean, snapshot.spread).double(), sized, frozen, pool, skip_non_finite
        )
    except NotEvaluated as reason:
        raise RuntimeError(f"The model cannot be recalibrated: {reason}") from reason
    return replaced(found, layers, _write, IN_EVAL_MODE)


def _write(result: Recalibration, layer: FlaxLayer, mean: Any, variance: Any) -> None:
    for variable, values in ((layer.module.mean, mean), (layer.module.var, variance)):
        before = variable[...]
        _put(variable, jnp.asarray(values, before.dtype))
        result.on_undo(partial(_put, variable, jnp.copy(before)))


def _put(variable: Any, value: Any) -> None:
    variable[...] = value
