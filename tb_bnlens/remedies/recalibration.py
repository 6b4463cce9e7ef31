"""Measure the moving statistics again at the present weights, with undo."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.layers import TrackedLayer
from tb_bnlens.capture.probe import BatchPass, Probe
from tb_bnlens.capture.segments import Segments
from tb_bnlens.frameworks.support import require, unsupported
from tb_bnlens.remedies.inputs import input_batches
from tb_bnlens.remedies.layers import built_layers

Array = NDArray[np.floating[Any]]

POOLS = ("batches", "samples")
MIN_SAMPLES = 100
"""With fewer samples, the mean of a channel is uncertain by more than a tenth of its standard deviation."""


class Recalibration:
    """Result of ``recalibrate``, with undo.

    As a context manager it undoes the change at the end of the block, unless ``keep()`` was called. Otherwise the
    change stays until ``undo()``.
    """

    def __init__(self, layers: Sequence[str], skipped: Mapping[str, str], batches: int, samples: int):
        self.layers = tuple(layers)
        """Names of the layers whose moving statistics were replaced."""
        self.skipped = dict(skipped)
        """Name -> why the layer kept its moving statistics."""
        self.batches = batches
        self.samples = samples
        self._before: list[tuple[Any, NDArray[Any]]] = []
        self._kept = False

    def undo(self) -> None:
        """Restore the old moving statistics, even if they have changed since. Safe to call twice."""
        for variable, value in self._before:
            variable.assign(value)
        self._before = []

    def keep(self) -> None:
        """Do not undo at the end of the ``with`` block."""
        self._kept = True

    def _write(self, variable: Any, value: Array) -> None:
        self._before.append((variable, np.asarray(variable).copy()))
        variable.assign(value.astype(np.float32))

    def __enter__(self) -> Recalibration:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            self.undo()

    def __repr__(self) -> str:
        return (
            f"Recalibration({len(self.layers)} layers, {len(self.skipped)} skipped, "
            f"{self.batches} batches, {self.samples} samples)"
        )


def recalibrate(
    model: Any,
    data: Any,
    batches: int = 200,
    *,
    frozen: bool = False,
    pool: str = "batches",
    batch_size: int = 32,
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
        pool: how the variances of the batches, [C] each, are combined. ``"batches"`` averages the biased batch
            variances, which Keras' moving variance converges to. ``"samples"`` pools the second moments,
            ``E[v + m^2] - E[m]^2``: the variance over all samples, larger by the variance of the batch means.
            Batches are weighted by their number of samples.
        batch_size: the batch size for arrays.

    Returns:
        A ``Recalibration`` with ``undo()`` and ``keep()``.

    Raises:
        NotImplementedError: not a Keras 3 model on TensorFlow.
        ValueError: the model is not built, it has no BatchNorm layer to recalibrate, the data have fewer than
            100 samples or give statistics that are not finite, ``pool`` is unknown, or ``batches`` is below 1.
        RuntimeError: batch statistics cannot be measured in this model. The message gives the reason.
    """
    if pool not in POOLS:
        raise ValueError(f"pool is {pool!r}; expected one of {POOLS}")
    if batches < 1:
        raise ValueError(f"batches is {batches!r}; expected 1 or more")
    require(unsupported(model), "recalibrate")
    layers = built_layers(model, "recalibrate")
    segments = Segments([t.channels for t in layers])
    try:
        probe = Probe(model, layers, segments, loss=_no_loss)
        return _recalibrate(probe, layers, segments, input_batches(data, batches, batch_size), frozen, pool)
    except NotEvaluated as reason:
        raise RuntimeError(f"The model cannot be recalibrated: {reason}") from reason


def _recalibrate(
    probe: Probe,
    layers: Sequence[TrackedLayer],
    segments: Segments,
    data: Iterable[Any],
    frozen: bool,
    pool: str,
) -> Recalibration:
    moving = [np.concatenate([np.asarray(v) for v in kind]) for kind in _statistics(layers)]
    skipped: dict[str, str] = {}
    on_moving = np.zeros(len(layers), bool)
    total = count = 0
    mean = second = within = np.zeros(int(segments.sizes.sum()))
    for batch in data:
        if count == 0:
            skipped = _left_alone(probe, layers, batch, frozen)
            on_moving = np.asarray([t.name in skipped for t in layers])
            if on_moving.all():
                raise ValueError(
                    "No BatchNorm layer of the model is updated in training; pass frozen=True to recalibrate them "
                    "all the same"
                )
        passed = probe.batch(batch, moving[0], moving[1], on_moving)
        _require_finite(passed, probe, layers, segments, on_moving, count)
        samples = int(keras.tree.flatten(batch)[0].shape[0])
        count, total = count + 1, total + samples
        rate = samples / total
        mean = mean + rate * (passed.mean - mean)
        within = within + rate * (passed.variance - within)
        second = second + rate * (_second_moment(passed, segments) - second)
    if total < MIN_SAMPLES:
        raise ValueError(
            f"data gave {total} samples in {count} batches; the statistics need {MIN_SAMPLES} at the least, and 1,000 "
            "to 10,000 to be good"
        )
    variance = within if pool == "batches" else np.maximum(second - np.square(mean), 0.0)
    called = set(probe.order)
    skipped |= {t.name: "the model does not call it" for i, t in enumerate(layers) if i not in called}
    chosen = [i for i, t in enumerate(layers) if t.name not in skipped]
    result = Recalibration([layers[i].name for i in chosen], skipped, count, total)
    means, variances = segments.split(mean), segments.split(variance)
    for i in chosen:
        layer = layers[i].layer
        result._write(layer.moving_mean, means[i])
        result._write(layer.moving_variance, variances[i])
        if layers[i].renorm:
            # Training derives moving_variance from it at the next step.
            result._write(layer.moving_stddev, np.sqrt(variances[i] + layer.epsilon))
    return result


def _statistics(layers: Sequence[TrackedLayer]) -> tuple[list[Any], list[Any]]:
    return [t.layer.moving_mean for t in layers], [t.layer.moving_variance for t in layers]


def _left_alone(probe: Probe, layers: Sequence[TrackedLayer], batch: Any, frozen: bool) -> dict[str, str]:
    """Layers that use their moving statistics in training too, with which the rest of the network has learned."""
    if frozen:
        return {}
    probe.training(batch)
    left = {t.name: "trainable=False" for t in layers if not t.layer.trainable}
    for i, tracked in enumerate(layers):
        if not probe.trains.get(i, True):
            left.setdefault(tracked.name, "the model calls it in inference mode")
    return left


def _second_moment(passed: BatchPass, segments: Segments) -> Array:
    second = passed.variance + np.square(passed.mean)
    for index, calls in passed.calls.items():
        part = slice(segments.starts[index], segments.stops[index])
        second[part] = np.mean([v.astype(np.float64) + np.square(m, dtype=np.float64) for m, v in calls], axis=0)
    return second


def _require_finite(
    passed: BatchPass,
    probe: Probe,
    layers: Sequence[TrackedLayer],
    segments: Segments,
    on_moving: NDArray[np.bool_],
    batch: int,
) -> None:
    bad = segments.count(~np.isfinite(passed.mean) | ~np.isfinite(passed.variance))
    for index in dict.fromkeys(probe.order):
        if bad[index] and not on_moving[index]:
            raise ValueError(
                f"Batch {batch} of data gives layer {layers[index].name!r} statistics that are not finite in "
                f"{int(bad[index])} of {layers[index].channels} channels; nothing was changed"
            )


def _no_loss(_y: Any, _y_pred: Any) -> Any:
    return tf.constant(0.0)
