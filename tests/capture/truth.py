"""What a measurement must give, by plain Keras: a patched layer and statistics that are assigned and put back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

BN = keras.layers.BatchNormalization
Statistics = dict[str, tuple[Any, Any]]
"""Layer name -> mean and variance."""


def norms(model: Any) -> list[Any]:
    return [layer for layer in model._flatten_layers() if isinstance(layer, BN)]


@contextlib.contextmanager
def kept(model: Any) -> Iterator[None]:
    """All variables, seeds included, are as before at the end of the block."""
    seeds = [s.state for layer in model._flatten_layers() for s in getattr(layer, "_seed_generators", [])]
    variables = [*model.variables, *seeds]
    old = [np.asarray(v).copy() for v in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, old, strict=True):
            variable.assign(value)


@contextlib.contextmanager
def by_batch(names: Sequence[str], seen: Statistics | None = None) -> Iterator[None]:
    """These layers normalize with their batch, the others with their moving statistics."""
    own = BN.call

    def call(layer: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        if layer.name not in names:
            return own(layer, inputs, training=False)
        mean, variance = tf.nn.moments(inputs, list(range(len(inputs.shape) - 1)))
        if seen is not None:
            seen[layer.name] = mean.numpy().astype(np.float64), variance.numpy().astype(np.float64)
        normalized = (inputs - mean) / tf.sqrt(variance + layer.epsilon)
        return (layer.gamma if layer.scale else 1.0) * normalized + (layer.beta if layer.center else 0.0)

    BN.call = call
    try:
        yield
    finally:
        BN.call = own


def statistics(model: Any, x: Any, names: Sequence[str], training: bool = False) -> Statistics:
    """Batch statistics of these layers; ``training`` turns dropout on."""
    seen: Statistics = {}
    with kept(model), by_batch(names, seen):
        model(x, training=training)
    return seen


def mean_of(every: Sequence[Statistics], sizes: Sequence[int], leave_out: int | None = None) -> Statistics:
    chosen = [i for i in range(len(every)) if i != leave_out]
    mean = partial(np.average, axis=0, weights=np.array([sizes[i] for i in chosen], np.float64))
    return {
        name: (mean([every[i][name][0] for i in chosen]), mean([every[i][name][1] for i in chosen]))
        for name in every[0]
    }


def assign(model: Any, found: Statistics) -> None:
    for layer in norms(model):
        if layer.name in found:
            layer.moving_mean.assign(found[layer.name][0])
            layer.moving_variance.assign(found[layer.name][1])


def loss(model: Any, batch: Any) -> float:
    """Loss in inference mode, as Keras has it."""
    x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
    return float(model.compute_loss(x, y, model(x, training=False), weight))


def loss_of_rows(model: Any, x: Any, y: Any) -> Any:
    """Cross-entropy of each row and the penalties in inference mode, [N]."""
    penalties = float(sum(model.losses))
    return np.asarray(keras.losses.sparse_categorical_crossentropy(y, model(x, training=False))) + penalties


def loss_by_batch(model: Any, batch: Any, names: Sequence[str]) -> float:
    with by_batch(names):
        return loss(model, batch)


def loss_with(model: Any, batch: Any, found: Statistics) -> float:
    """Loss in inference mode on these moving statistics."""
    with kept(model):
        assign(model, found)
        return loss(model, batch)
