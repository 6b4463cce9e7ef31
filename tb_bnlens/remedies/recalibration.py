"""Measure the moving statistics again at the present weights, with undo."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.frameworks.keras3.backend import backend
from tb_bnlens.frameworks.keras3.layers import KerasLayer
from tb_bnlens.frameworks.keras3.runner import KerasRunner
from tb_bnlens.frameworks.support import require, unsupported
from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.segments import Segments
from tb_bnlens.remedies.inputs import input_batches
from tb_bnlens.remedies.layers import built_layers
from tb_bnlens.remedies.measured import Recalibration, measure, replaced, require_arguments

Array = NDArray[np.floating[Any]]


def recalibrate(
    model: Any,
    data: Any,
    batches: int = 200,
    *,
    frozen: bool = False,
    pool: str = "batches",
    batch_size: int = 32,
    skip_non_finite: bool = False,
) -> Recalibration:
    """Replace the moving statistics by statistics of ``data`` at the present weights (PreciseBN).

    ::

        with tb_bnlens.recalibrate(model, train_ds, batches=200) as change:
            model.evaluate(test_ds)      # with the new statistics
            change.keep()                # without this, the block restores the old ones

        tb_bnlens.recalibrate(model, train_ds)   # without ``with``, until .undo()

    Use *training* data, in batches like those of training. Every batch runs through the model once, with dropout off,
    and each layer normalizes with the statistics of that batch, as in Wu & Johnson 2021 ("Rethinking 'Batch' in
    BatchNorm", section 3). There, 1,000 to 10,000 samples suffice. Nothing else is written: no weight, seed or metric.

    All layers are measured in one pass, so the inputs of a layer come from layers that use batch statistics, as in
    training. At inference those layers use fixed statistics. Measuring one layer after another, each behind
    recalibrated ones, takes one pass over the data per layer and gains little: on MobileNetV2 with 20 batches of 16,
    the inference loss fell from 1,404 to 1.9 in 4 s with one pass, and to 1.4 in 25 s layer by layer.

    Args:
        model: a built Keras model.
        data: ``tf.data.Dataset``, ``PyDataset`` or any iterable of batches, each ``x`` or ``(x, y, ...)``; or
            arrays ``x`` or ``(x, y)``, which are shuffled and split into batches. Only ``x`` is used.
        batches: the largest number of batches to use.
        frozen: also replace the statistics of layers that training does not update (``trainable=False``, or called
            in inference mode). By default they keep theirs, and later layers are measured with those in effect.
        pool: how the variances of the batches, [C] each, are combined. ``"batches"`` averages the batch variances, as
            the moving variance does: biased, but unbiased in fused layers of Keras 2. ``"samples"`` pools the second
            moments, ``E[v + m^2] - E[m]^2``: the variance over all samples, larger by the variance of the batch
            means. Batches are weighted by their number of samples.
        batch_size: the batch size for arrays.
        skip_non_finite: leave out batches that give statistics that are not finite, with a warning, instead of raising.

    Returns:
        A ``Recalibration`` with ``undo()`` and ``keep()``.

    Raises:
        NotImplementedError: not a Keras model on TensorFlow, JAX or PyTorch.
        ValueError: the model is not built, it has no BatchNorm layer to recalibrate, the data have no samples or
            give statistics that are not finite, ``pool`` is unknown, or ``batches`` is below 1.
        RuntimeError: batch statistics cannot be measured in this model. The message gives the reason.

    Warns:
        UserWarning: the data have fewer than 100 samples.
    """
    require_arguments(batches, pool)
    require(unsupported(model), "recalibrate")
    layers = built_layers(model, "recalibrate")
    segments = Segments([t.channels for t in layers])
    on = backend(model)
    moving = Moments(
        *(
            np.concatenate([on.library.host(v) for v in kind])
            for kind in ([t.layer.moving_mean for t in layers], [t.layer.moving_variance for t in layers])
        )
    )
    source = ((b, on.batches.size(b) or 0) for b in input_batches(on.batches, data, batches, batch_size))
    try:
        runner = KerasRunner(on, model, layers, segments, lambda _y, _y_pred: on.library.ops.zeros(()))
        found = measure(runner, layers, moving, source, frozen, pool, skip_non_finite)
    except NotEvaluated as reason:
        raise RuntimeError(f"The model cannot be recalibrated: {reason}") from reason
    return replaced(found, layers, partial(_write, on.library.host))


def _write(
    host: Callable[[Any], Array], result: Recalibration, tracked: KerasLayer, mean: Array, variance: Array
) -> None:
    layer = tracked.layer
    values = [(layer.moving_mean, mean), (layer.moving_variance, variance)]
    if tracked.renorm:
        # Training derives moving_variance from it at the next step.
        values.append((layer.moving_stddev, np.sqrt(variance + layer.epsilon)))
    for variable, value in values:
        result.on_undo(partial(variable.assign, host(variable).copy()))
        variable.assign(value.astype(np.float32))
