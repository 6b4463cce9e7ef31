"""Parts of small real trainings: data, models and how they are trained; seconds each, on blobs in 16 dimensions.

Each function trains one run, records it in ``run`` and returns ``(model, data)`` as they are then. ``repair`` is what a
user who applies a fix does to the two before compiling; the default changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from tb_bnlens import BNLens, Recorder

Trained = tuple[Any, Any]
Repair = Callable[[Any, Any], Trained]
Build = Callable[..., Trained]


def as_is(model: Any, data: Any) -> Trained:
    return model, data


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


def batch_norm(momentum: float) -> Any:
    return kl.BatchNormalization(momentum=momentum)


def dense(
    momentum: float = 0.99,
    *,
    width: int = 32,
    depth: int = 2,
    dropout: float = 0.0,
    norm: Callable[[float], Any] = batch_norm,
) -> Any:
    inputs = x = keras.Input((16,))
    for _ in range(depth):
        x = kl.Dense(width, use_bias=False)(x)
        x = kl.ReLU()(norm(momentum)(x))
        if dropout:
            x = kl.Dropout(dropout)(x)
    return keras.Model(inputs, kl.Dense(4)(x))


def cross_entropy() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(model: Any, rate: Any = 1e-3, optimizer: Any = None) -> Any:
    """Compile the model. The optimizer has its variables: Keras traces a step twice that makes them."""
    model.compile(optimizer or keras.optimizers.Adam(rate), cross_entropy())
    model.optimizer.build(model.trainable_variables)
    return model


def fit(run: str, model: Any, data: Any, epochs: int = 8, callbacks: Any = (), **options: Any) -> Trained:
    lens = BNLens(run, on_error="raise", **options)
    model.fit(data, epochs=epochs, shuffle=False, verbose=0, callbacks=[*callbacks, lens])
    return model, data


def trained(
    run: str,
    xy: Any,
    momentum: float = 0.99,
    epochs: int = 8,
    size: int = 32,
    *,
    rate: Any = 1e-3,
    optimizer: Any = None,
    repair: Repair = as_is,
    options: Any = None,
    **model: Any,
) -> Trained:
    """A dense network on shuffled batches."""
    network, data = repair(dense(momentum, **model), batched(xy, size))
    return fit(run, compiled(network, rate, optimizer), data, epochs, **(options or {}))


def unshuffled(run: str, xy: Any, epochs: int = 8, *, repair: Repair = as_is, **model: Any) -> Trained:
    """In the order in which the data lie."""
    network, data = repair(dense(**model), batched(xy, shuffle=False))
    return fit(run, compiled(network), data, epochs)


def sorted_by_class() -> Any:
    x, y = blobs()
    order = np.argsort(y, kind="stable")
    return x[order], y[order]


def two_domains(stretch: int = 32) -> Any:
    """Two kinds of data that take turns after ``stretch`` samples; what tells the classes is the same in both."""
    kinds = [blobs(1024), blobs(1024, seed=1, shift=4, scale=2)]
    parts = [[part.reshape(-1, stretch, *part.shape[1:]) for part in kind] for kind in kinds]
    return tuple(np.stack(pair, 1).reshape(-1, *pair[0].shape[2:]) for pair in zip(*parts, strict=True))


def shared_layer(run: str, shift: float, scale: float, norms: Any = None) -> Trained:
    """Two towers of one set of weights, with one BatchNorm layer or with one each."""
    (x, y), (x2, y2) = blobs(1024), blobs(1024, seed=1, shift=shift, scale=scale)
    a, b = keras.Input((16,)), keras.Input((16,))
    first, last = kl.Dense(32), kl.Dense(4)
    if norms is None:
        norms = (batch_norm(0.9),) * 2
    towers = [last(kl.ReLU()(norm(first(t)))) for norm, t in zip(norms, (a, b), strict=True)]
    model = keras.Model([a, b], kl.Concatenate()(towers))

    def loss(target: Any, logits: Any) -> Any:
        parts = zip((target[:, 0], target[:, 1]), (logits[:, :4], logits[:, 4:]), strict=True)
        return sum(keras.losses.sparse_categorical_crossentropy(t, z, from_logits=True) for t, z in parts)

    model.compile(keras.optimizers.Adam(1e-2), loss)
    pairs = tf.data.Dataset.from_tensor_slices(((x, x2), np.stack([y, y2], 1)))
    return fit(run, model, pairs.shuffle(1024, seed=0).batch(32), 10)


def short_last_batch(
    run: str, momentum: float = 0.5, epochs: int = 20, repair: Repair = as_is, **model: Any
) -> Trained:
    network, data = repair(dense(momentum, **model), batched(blobs(513, spread=0.7), 64, drop=False))
    return fit(run, compiled(network), data, epochs)


def averaged_weights(run: str) -> Trained:
    optimizer = keras.optimizers.Adam(0.02, use_ema=True, ema_momentum=0.995)
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    return fit(run, compiled(dense(0.9, depth=4), optimizer=optimizer), batched(blobs(spread=0.7)), callbacks=[swap])


class Poison(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if int(self.model.optimizer.iterations) == 200:
            norm = next(x for x in self.model.layers if isinstance(x, kl.BatchNormalization))
            mean = norm.moving_mean.numpy().copy()
            mean[3] = np.nan
            norm.moving_mean.assign(mean)


def poisoned(run: str) -> Trained:
    return fit(run, compiled(dense()), batched(blobs()), callbacks=[Poison()])


def pretrained(momentum: float = 0.9, depth: int = 3) -> Any:
    model = compiled(dense(momentum, depth=depth), 1e-2)
    model.fit(batched(blobs()), epochs=6, shuffle=False, verbose=0)
    return model


def frozen_base(run: str, rate: float = 1e-3, **other: Any) -> Trained:
    """A trained network on other data; all but its head is frozen, and the rate says how far the head can adapt."""
    model = pretrained()
    for layer in model.layers[:-1]:
        layer.trainable = False
    return fit(run, compiled(model, rate), batched(blobs(seed=5, **other)))


@keras.saving.register_keras_serializable()
class CallsInInferenceMode(keras.Model):
    """Passes training=False to a trainable base, or, repaired, its own argument."""

    def __init__(self, base: Any, passes_on: bool = False):
        super().__init__()
        self.base, self.passes_on = base, passes_on

    def call(self, x: Any, training: Any = None) -> Any:
        return self.base(x, training=training if self.passes_on else False)


def inference_mode(
    run: str, base: Any, rate: float, passes_on: bool = False, scale: float = 0.2, shift: float = 2.0
) -> Trained:
    model = CallsInInferenceMode(base, passes_on)
    model(np.zeros((2, 16), "float32"))
    return fit(run, compiled(model, rate), batched(blobs(seed=5, scale=scale, shift=shift)))


def own_loop(run: str, training: bool, model: Any = None, rate: float = 1e-2) -> Trained:
    model, optimizer = model or dense(0.9), keras.optimizers.Adam(rate)
    loss, data = cross_entropy(), batched(blobs(scale=10, shift=5))

    @tf.function
    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True) if training else model(x))
        weights = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(value, weights), weights, strict=True))

    with Recorder(model, run, loss=loss, on_error="raise") as lens:
        for _ in range(6):
            for x, y in data:
                step(x, y)
                lens.record(x, y)
    return model, data


def set_after_trace(run: str, first: dict[str, Any], then: dict[str, Any], at_epoch: int | None) -> Trained:
    """Set attributes of every BatchNorm layer once two steps have traced the training step, or during the run."""
    model, data = dense(depth=3), batched(blobs(scale=10, shift=5))

    def put(values: dict[str, Any]) -> None:
        for layer in model.layers:
            if isinstance(layer, kl.BatchNormalization):
                for name, value in values.items():
                    setattr(layer, name, value)

    class Set(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == at_epoch:
                put(then)

    put(first)
    compiled(model).fit(data.take(2), shuffle=False, verbose=0)
    if at_epoch is None:
        put(then)
    return fit(run, model, data, callbacks=[Set()])


def overfitted(run: str) -> Trained:
    data, other = blobs(128, spread=0.3), blobs(512, spread=0.3, seed=7)
    return fit(run, compiled(dense(0.9, width=128), 1e-2), batched(data), 60, validation_data=other)


def shifted_validation(run: str, **other: float) -> Trained:
    data = blobs(512, seed=7, **other)
    model, _ = fit(run, compiled(dense(0.9), 1e-2), batched(blobs()), validation_data=data)
    return model, batched(data)


def dropout_first(run: str, last: bool = False) -> Trained:
    """Dropout in front of every BatchNorm, or, repaired, behind the last one."""
    inputs = x = keras.Input((16,))
    for _ in range(3):
        x = kl.Dense(64, activation="relu")(x)
        x = kl.Dense(64)(x if last else kl.Dropout(0.6)(x))
        x = kl.ReLU()(batch_norm(0.9)(x))
    x = kl.Dropout(0.3)(x) if last else x
    model = keras.Model(inputs, kl.Dense(1)(x))
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    features, _ = blobs()
    target = np.maximum(features @ np.random.default_rng(1).normal(size=(16, 4)), 0).mean(1, keepdims=True)
    return fit(run, model, batched((features, target.astype("float32"))), 10)


def called_apart(run: str, together: bool = False) -> Trained:
    """A network that a step calls on two kinds of data, and the lens sees one; or, repaired, on both in one call."""
    model, optimizer, loss = dense(0.95), keras.optimizers.Adam(2e-3), cross_entropy()
    model(np.zeros((2, 16), "float32"))
    data = batched(blobs())
    other = tf.constant(blobs(32, seed=2, scale=0.3, shift=3)[0])

    @tf.function
    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            if together:
                logits, apart = tf.split(model(tf.concat([x, other], 0), training=True), 2)
            else:
                logits, apart = model(x, training=True), model(other, training=True)
            value = loss(y, logits) + 0.01 * tf.reduce_mean(apart**2)
        weights = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(value, weights), weights, strict=True))

    with Recorder(model, run, loss=loss, on_error="raise") as opened:
        for _ in range(6):
            for x, y in data:
                step(x, y)
                opened.record(x, y)
    return model, data


def dead_channels(run: str) -> Trained:
    inputs = keras.Input((16,))
    x = kl.Dense(16, use_bias=False)(inputs) * np.array([1.0] * 10 + [0.0] * 6, "float32")
    x = kl.ReLU()(batch_norm(0.9)(x))
    return fit(run, compiled(keras.Model(inputs, kl.Dense(4)(x)), 1e-2), batched(blobs()))


def negative_loss(run: str, momentum: float, scale: float, repair: Repair = as_is) -> Trained:
    def nll(target: Any, out: Any) -> Any:
        return tf.reduce_mean(out[:, 1] + 0.5 * tf.exp(-2 * out[:, 1]) * tf.square(target[:, 0] - out[:, 0]))

    x, _ = blobs()
    model, data = repair(dense(momentum), batched((x * scale, 0.01 * x[:, :1] + 0.02)))
    model.compile(keras.optimizers.Adam(3e-3), nll)
    return fit(run, model, data, 15)
