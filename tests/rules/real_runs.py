"""Small real training runs, each with a fault or without: seconds each, on blobs in 16 dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from tb_bnlens import BNLens, Recorder

Build = Callable[[str], None]


def blobs(n: int = 2048, *, seed: int = 0, scale: float = 1.0, shift: float = 0.0, spread: float = 1.5) -> Any:
    """Four Gaussian classes, (x [n, 16], y [n])."""
    centers = np.random.default_rng(99).normal(size=(4, 16)) * spread
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n)
    x = (centers[y] + rng.normal(size=(n, 16))) * scale + shift
    return x.astype("float32"), y.astype("int32")


def batched(xy: Any, size: int = 32, shuffle: bool = True, drop: bool = True) -> Any:
    data = tf.data.Dataset.from_tensor_slices(xy)
    if shuffle:
        data = data.shuffle(4096, seed=0)
    return data.batch(size, drop_remainder=drop)


def dense(momentum: float = 0.99, *, width: int = 32, depth: int = 2, dropout: float = 0.0) -> Any:
    inputs = x = keras.Input((16,))
    for _ in range(depth):
        x = kl.Dense(width, use_bias=False)(x)
        x = kl.ReLU()(kl.BatchNormalization(momentum=momentum)(x))
        if dropout:
            x = kl.Dropout(dropout)(x)
    return keras.Model(inputs, kl.Dense(4)(x))


def compiled(model: Any, rate: float = 1e-3, optimizer: Any = None) -> Any:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.Adam(rate), loss)
    return model


def fit(run: str, model: Any, data: Any, epochs: int = 8, callbacks: Any = (), **options: Any) -> None:
    lens = BNLens(run, on_error="raise", **options)
    model.fit(data, epochs=epochs, shuffle=False, verbose=0, callbacks=[*callbacks, lens])


def trained(run: str, xy: Any, momentum: float = 0.99, epochs: int = 8, size: int = 32, **model: Any) -> None:
    fit(run, compiled(dense(momentum, **model)), batched(xy, size), epochs)


def sorted_by_class(run: str) -> None:
    x, y = blobs()
    order = np.argsort(y, kind="stable")
    fit(run, compiled(dense()), batched((x[order], y[order]), shuffle=False))


def domains_in_turn(run: str) -> None:
    kinds = [batched(blobs(1024)).repeat(), batched(blobs(1024, seed=1, shift=4, scale=2)).repeat()]
    data = tf.data.Dataset.choose_from_datasets(kinds, tf.data.Dataset.range(2).repeat()).take(64)
    fit(run, compiled(dense()), data)


def shared_layer(run: str, shift: float, scale: float) -> None:
    (x, y), (x2, y2) = blobs(1024), blobs(1024, seed=1, shift=shift, scale=scale)
    a, b = keras.Input((16,)), keras.Input((16,))
    first, norm, last = kl.Dense(32), kl.BatchNormalization(momentum=0.9), kl.Dense(4)
    towers = [last(kl.ReLU()(norm(first(t)))) for t in (a, b)]
    model = keras.Model([a, b], kl.Concatenate()(towers))

    def loss(target: Any, logits: Any) -> Any:
        parts = zip((target[:, 0], target[:, 1]), (logits[:, :4], logits[:, 4:]), strict=True)
        return sum(keras.losses.sparse_categorical_crossentropy(t, z, from_logits=True) for t, z in parts)

    model.compile(keras.optimizers.Adam(1e-2), loss)
    pairs = tf.data.Dataset.from_tensor_slices(((x, x2), np.stack([y, y2], 1)))
    fit(run, model, pairs.shuffle(1024, seed=0).batch(32), 10)


def short_last_batch(run: str) -> None:
    fit(run, compiled(dense(0.5, depth=3)), batched(blobs(513, spread=0.7), 64, drop=False), 20)


def averaged_weights(run: str) -> None:
    optimizer = keras.optimizers.Adam(0.02, use_ema=True, ema_momentum=0.995)
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    fit(run, compiled(dense(0.9, depth=4), optimizer=optimizer), batched(blobs(spread=0.7)), callbacks=[swap])


class Poison(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if int(self.model.optimizer.iterations) == 200:
            norm = next(x for x in self.model.layers if isinstance(x, kl.BatchNormalization))
            mean = norm.moving_mean.numpy().copy()
            mean[3] = np.nan
            norm.moving_mean.assign(mean)


def poisoned(run: str) -> None:
    fit(run, compiled(dense()), batched(blobs()), callbacks=[Poison()])


def frozen_base(run: str, **other: float) -> None:
    model = compiled(dense(0.9, depth=3), 1e-2)
    model.fit(batched(blobs()), epochs=6, shuffle=False, verbose=0)
    for layer in model.layers[:-1]:
        layer.trainable = False
    fit(run, compiled(model), batched(blobs(seed=5, **other)))


@keras.saving.register_keras_serializable()
class CalledInInferenceMode(keras.Model):
    def __init__(self, base: Any):
        super().__init__()
        self.base, self.head = base, kl.Dense(4)

    def call(self, x: Any) -> Any:
        return self.head(self.base(x, training=False))


def inference_mode(run: str) -> None:
    model = CalledInInferenceMode(dense(0.9))
    model(np.zeros((2, 16), "float32"))
    fit(run, compiled(model, 1e-2), batched(blobs(scale=10, shift=5)))


def own_loop(run: str, training: bool) -> None:
    model, optimizer = dense(0.9), keras.optimizers.Adam(1e-2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True) if training else model(x))
        weights = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(value, weights), weights, strict=True))

    with Recorder(model, run, loss=loss, on_error="raise") as lens:
        for _ in range(6):
            for x, y in batched(blobs(scale=10, shift=5)):
                step(x, y)
                lens.record(x, y)


def momentum_after_trace(run: str) -> None:
    model, data = compiled(dense(0.999, depth=3)), batched(blobs(scale=10, shift=5))
    model.fit(data.take(2), shuffle=False, verbose=0)
    for layer in model.layers:
        if isinstance(layer, kl.BatchNormalization):
            layer.momentum = 0.9
    fit(run, model, data)


def overfitted(run: str) -> None:
    data, other = blobs(128, spread=0.3), blobs(512, spread=0.3, seed=7)
    fit(run, compiled(dense(0.9, width=128), 1e-2), batched(data), 60, validation_data=other)


def shifted_validation(run: str) -> None:
    other = blobs(512, seed=7, scale=2, shift=3)
    fit(run, compiled(dense(0.9), 1e-2), batched(blobs()), validation_data=other)


def dead_channels(run: str) -> None:
    inputs = keras.Input((16,))
    x = kl.Dense(16, use_bias=False)(inputs) * np.array([1.0] * 10 + [0.0] * 6, "float32")
    x = kl.ReLU()(kl.BatchNormalization(momentum=0.9)(x))
    fit(run, compiled(keras.Model(inputs, kl.Dense(4)(x)), 1e-2), batched(blobs()))


def negative_loss(run: str, momentum: float, scale: float) -> None:
    def nll(target: Any, out: Any) -> Any:
        return tf.reduce_mean(out[:, 1] + 0.5 * tf.exp(-2 * out[:, 1]) * tf.square(target[:, 0] - out[:, 0]))

    x, _ = blobs()
    model = dense(momentum)
    model.compile(keras.optimizers.Adam(3e-3), nll)
    fit(run, model, batched((x * scale, 0.01 * x[:, :1] + 0.02)), 15)


FAULTS: dict[str, tuple[Build, str, set[str]]] = {
    "momentum 0.9997": (
        lambda run: trained(run, blobs(scale=0.1), 0.9997, 20, depth=3),
        "momentum-too-high",
        {"error"},
    ),
    "negative loss": (lambda run: negative_loss(run, 0.9995, 10), "momentum-too-high", {"error"}),
    "momentum 0.1": (
        lambda run: trained(run, blobs(1024, spread=0.7), 0.1, 6, 8, depth=4),
        "momentum-too-low",
        {"warning", "error"},
    ),
    "momentum 1": (
        lambda run: trained(run, blobs(scale=10, shift=5), 1.0, 6),
        "never-updated",
        {"info", "warning", "error"},
    ),
    "poisoned": (poisoned, "non-finite-statistics", {"error"}),
    "sorted by class": (sorted_by_class, "unlike-batches", {"info", "warning", "error"}),
    "domains in turn": (domains_in_turn, "unlike-batches", {"error"}),
    "shared by two domains": (lambda run: shared_layer(run, 4, 2), "alternating-domains", {"error"}),
    "short last batch": (short_last_batch, "short-last-batch", {"warning", "error"}),
    "averaged weights": (averaged_weights, "averaged-weights", {"warning", "error"}),
    "frozen on other data": (lambda run: frozen_base(run, scale=3, shift=3), "frozen-mismatch", {"info"}),
    "called in inference mode": (inference_mode, "inference-mode-layer", {"info"}),
    "loop without training=True": (lambda run: own_loop(run, False), "never-updated", {"info"}),
    "momentum set after the trace": (momentum_after_trace, "set-after-trace", {"info", "warning", "error"}),
    "overfitted": (overfitted, "overfitting", {"info"}),
    "shifted validation": (shifted_validation, "validation-shift", {"warning", "error"}),
    "dead channels": (dead_channels, "collapsed-channels", {"info"}),
}
"""Name -> how to train it, the rule that has to be the cause, its severities."""

HEALTHY: dict[str, Build] = {
    "momentum 0.9": lambda run: trained(run, blobs(), 0.9),
    "momentum 0.99": lambda run: trained(run, blobs(), 0.99, 12),
    "batch of 4": lambda run: trained(run, blobs(1024), 0.9, 6, 4),
    "batch of 8, 4 units": lambda run: trained(run, blobs(1024), 0.99, 10, 8, width=4),
    "labels without meaning": lambda run: trained(run, (blobs()[0], blobs(seed=3)[1])),
    "some dropout": lambda run: trained(run, blobs(spread=0.7), 0.9, dropout=0.2),
    "frozen on its own data": lambda run: frozen_base(run),
    "shared by one domain": lambda run: shared_layer(run, 0, 1),
    "loop": lambda run: own_loop(run, True),
    "negative loss": lambda run: negative_loss(run, 0.9, 1),
    "short last batch at 0.99": lambda run: fit(run, compiled(dense()), batched(blobs(513), 64, drop=False), 60),
}
