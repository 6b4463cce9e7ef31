"""Small real trainings about what batches hold: each kind of fault on several networks, and healthy look-alikes.

Each function trains one run, records it in ``run`` and returns the model and the data as they are then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from tb_bnlens import BNLens
from tests.diagnosis import real_runs as real
from tests.diagnosis.healthy import images
from tests.diagnosis.real_runs import Build, Trained, batch_norm, batched, blobs, compiled, dense, fit

Wrap = Callable[[Any], Any]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def regression(n: int = 1600, features: int = 12, *, seed: int = 0) -> Any:
    """A smooth function of standard normal inputs, (x [n, features], y [n, 1])."""
    w = rng(5).normal(size=(features, 1)) / np.sqrt(features)
    x = rng(seed).normal(size=(n, features))
    return x.astype("float32"), np.tanh(1.5 * x @ w).astype("float32")


def regressor(features: int = 12, momentum: float = 0.9, width: int = 32, depth: int = 2) -> Any:
    inputs = x = keras.Input((features,))
    for _ in range(depth):
        x = kl.ReLU()(batch_norm(momentum)(kl.Dense(width)(x)))
    return keras.Model(inputs, kl.Dense(1)(x))


def squared(model: Any, optimizer: Any = None, **options: Any) -> Any:
    model.compile(optimizer or keras.optimizers.Adam(3e-3), "mse", **options)
    return model


def convolutional(momentum: float = 0.9, channels: int = 12, depth: int = 2) -> Any:
    inputs = x = keras.Input((12, 12, 1))
    for _ in range(depth):
        x = kl.ReLU()(batch_norm(momentum)(kl.Conv2D(channels, 3, padding="same", use_bias=False)(x)))
    return keras.Model(inputs, kl.Dense(4)(kl.GlobalAveragePooling2D()(x)))


def of_known_size(data: Any) -> Any:
    """Keras warns of a data set whose size it has to find out."""
    return data.apply(tf.data.experimental.assert_cardinality(sum(1 for _ in data)))


def by_class(xy: Any) -> Any:
    x, y = xy
    order = np.argsort(np.ravel(y), kind="stable")
    return x[order], y[order]


# --- statistics that inference does not use ------------------------------------------------------------


class HardWired(keras.Model):
    """Calls some of its layers with ``training=True`` whatever the mode."""

    def __init__(self, wired: tuple[bool, ...] = (True, True), outputs: int = 1):
        super().__init__()
        self.dense = [kl.Dense(32) for _ in wired]
        self.norms = [kl.BatchNormalization(momentum=0.9, name=f"norm{i}") for i in range(len(wired))]
        self.head, self.wired = kl.Dense(outputs), wired

    def call(self, x: Any, training: Any = None) -> Any:
        for linear, norm, wired in zip(self.dense, self.norms, self.wired, strict=True):
            x = tf.nn.relu(norm(linear(x), training=True if wired else training))
        return self.head(x)


def hard_wired(run: str, wired: tuple[bool, ...] = (True, True)) -> Trained:
    x, y = regression()
    model = HardWired(wired)
    model(x[:2])
    return fit(run, squared(model), batched((x + 1, y)), 6)


def hard_wired_graph(run: str) -> Trained:
    """A functional model whose layers were built with ``training=True``, which the mode overrides in Keras 3."""
    inputs = x = keras.Input((16,))
    for _ in range(2):
        x = kl.ReLU()(batch_norm(0.9)(kl.Dense(32)(x), training=True))
    model = keras.Model(inputs, kl.Dense(4)(x))
    return fit(run, compiled(model, optimizer=keras.optimizers.SGD(0.1, 0.9)), batched(blobs(spread=0.7)), 6)


def closed_branch(run: str) -> Trained:
    """The only BatchNorm is in a residual branch that starts closed and is hardly trained."""
    inputs = keras.Input((16,))
    x = kl.Dense(32, activation="relu")(inputs)
    norm = kl.BatchNormalization(momentum=0.9, gamma_initializer="zeros")
    norm.gamma_constraint = keras.constraints.MaxNorm(0.0)
    x = kl.Add()([x, norm(kl.Dense(32)(x))])
    return fit(run, compiled(keras.Model(inputs, kl.Dense(4)(x))), batched(blobs()), 4)


# --- batches that differ ------------------------------------------------------------------------


def sorted_images(run: str, shuffle: bool = False) -> Trained:
    data = batched(by_class(images(1024)), 16, shuffle=shuffle)
    return fit(run, compiled(convolutional(), optimizer=keras.optimizers.SGD(0.05, 0.9)), data, 6)


def sorted_by_target(run: str, shuffle: bool = False) -> Trained:
    return fit(run, squared(regressor(momentum=0.99)), batched(by_class(regression()), 32, shuffle=shuffle), 8)


def sorted_two_classes(run: str, shuffle: bool = False) -> Trained:
    x, y = blobs(spread=0.7)
    data = batched(by_class((x, y // 2)), 32, shuffle=shuffle)
    return fit(run, compiled(dense(0.9, width=24), 3e-4), data, 6)


def given(batches: Any, seed: int = 0) -> Any:
    """These batches in another order in each epoch."""
    order = rng(seed)

    def epoch() -> Any:
        yield from (batches[k] for k in order.permutation(len(batches)))

    spec = tuple(tf.TensorSpec(part.shape, part.dtype) for part in batches[0])
    data = tf.data.Dataset.from_generator(epoch, output_signature=spec)
    return data.apply(tf.data.experimental.assert_cardinality(len(batches)))


def cut(xy: Any, size: int = 32) -> Any:
    x, y = xy
    return [(x[k : k + size], y[k : k + size]) for k in range(0, len(x) - size + 1, size)]


def class_by_class(run: str) -> Trained:
    """Each batch is of one class, and the classes come in any order."""
    return fit(run, compiled(dense(0.9)), given(cut(by_class(blobs(1536, spread=0.7)))), 6)


def rare_domain(run: str) -> Trained:
    """One batch in twenty is from another domain."""
    batches = cut(blobs(32 * 57, spread=0.7)) + cut(blobs(96, seed=9, spread=0.7, scale=4.0, shift=8.0))
    return fit(run, compiled(dense(0.99)), given(batches), 8)


def in_turn(run: str, rounds: int = 4, kinds: int = 2, momentum: float = 0.9) -> Trained:
    """One fit for each kind of data, several times over, under one lens."""
    parts = [blobs(480, seed=k, spread=0.8, shift=3.0 * k, scale=1.0 + k) for k in range(kinds)]
    model, lens = compiled(dense(momentum), 3e-3), BNLens(run, on_error="raise")
    for _ in range(rounds):
        for x, y in parts:
            model.fit(x, y, batch_size=32, verbose=0, callbacks=[lens])
    return model, batched(tuple(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def fitted_again(run: str) -> Trained:
    """The same data in several fits."""
    return in_turn(run, rounds=8, kinds=1)


# --- rows that dominate the statistics -----------------------------------------------------------------


def glitches(run: str, rows: int = 12, factor: float = 60.0) -> Trained:
    """Some images are many times too bright."""
    x, y = images(1536)
    x = x.copy()
    x[rng(3).choice(len(x), rows, replace=False)] *= factor
    return fit(run, compiled(convolutional(), 3e-3), batched((x, y)), 8)


def unscaled_rows(run: str, rows: int = 16, factor: float = 80.0, repair: real.Repair = real.as_is) -> Trained:
    x, y = regression()
    x = x.copy()
    x[rng(3).choice(len(x), rows, replace=False)] *= factor
    model, data = repair(regressor(momentum=0.99), batched((x, y)))
    return fit(run, squared(model), data, 12)


def unscaled_in_most_batches(run: str) -> Trained:
    """One row in seventeen was not scaled, so that few batches are without one."""
    x, y = regression(2048)
    x = x.copy()
    x[rng(3).choice(len(x), 120, replace=False)] *= 40
    return fit(run, squared(regressor(momentum=0.99)), batched((x, y)), 10)


def heavy_tailed(run: str, kind: str = "lognormal") -> Trained:
    """Inputs with heavy tails that the target depends on."""
    z = rng(1).normal(size=(1600, 12)) if kind == "lognormal" else rng(1).standard_t(3, size=(1600, 12))
    w = rng(5).normal(size=(12, 1)) / np.sqrt(12)
    x = np.exp(z) if kind == "lognormal" else z
    y = np.tanh((np.log(x) if kind == "lognormal" else x) @ w)
    return fit(run, squared(regressor()), batched((x.astype("float32"), y.astype("float32"))), 10)


# --- rows that do not count ----------------------------------------------------------------------------


def padded(run: str, size: int = 32, fill: float = 0.0, rest: int = 3, repair: real.Repair = real.as_is) -> Trained:
    """The last batch of each epoch is filled up with rows of weight 0."""
    x, y = blobs(size * 6 + rest, spread=0.7, shift=3.0)
    weight, shuffler = np.ones(len(x), "float32"), rng(6)

    def epoch() -> Any:
        order = shuffler.permutation(len(x))
        for k in range(0, len(x), size):
            chosen = order[k : k + size]
            more = size - len(chosen)
            yield (
                np.pad(x[chosen], ((0, more), (0, 0)), constant_values=fill),
                np.pad(y[chosen], (0, more)),
                np.pad(weight[chosen], (0, more)),
            )

    shapes = tf.TensorSpec((size, 16)), tf.TensorSpec((size,), tf.int32), tf.TensorSpec((size,))
    data = tf.data.Dataset.from_generator(epoch, output_signature=shapes)
    data = data.apply(tf.data.experimental.assert_cardinality(7))
    model, data = repair(dense(0.9), data)
    return fit(run, compiled(model), data, 40)


def always_padded(run: str) -> Trained:
    """A quarter of every batch is padding: training and inference see the same statistics."""
    x, y = blobs(1536, spread=0.7, shift=1.0)
    weight = np.ones(len(x), "float32")
    weight[::4] = 0
    x[::4] = 0
    data = tf.data.Dataset.from_tensor_slices((x, y, weight))
    shuffled = of_known_size(data.batch(4).shuffle(512, seed=0).unbatch().batch(32))
    return fit(run, compiled(dense(0.9)), shuffled, 8)


def weighted_rows(run: str) -> Trained:
    """Rows of weight 0 that are like the others."""
    x, y = blobs(1536, spread=0.7)
    weight = (rng(2).random(len(x)) < 0.7).astype("float32")
    return fit(run, compiled(dense(0.9)), batched((x, y, weight)), 8)


# --- batches that are learned by heart -----------------------------------------------------------------


def memorized(run: str, width: int = 96, shuffle: bool = False, repair: real.Repair = real.as_is) -> Trained:
    """Noisy labels in batches that are the same in every epoch."""
    model, data = repair(dense(0.9, width=width, depth=3), batched(blobs(512, spread=0.3), shuffle=shuffle))
    return fit(run, compiled(model, 5e-3), data, 12)


def unshuffled_and_easy(run: str) -> Trained:
    return fit(run, compiled(dense(0.9)), batched(blobs(2048), shuffle=False), 6)


# --- small batches -------------------------------------------------------------------------------------


def micro_batches(
    run: str, size: int = 2, depth: int = 2, spread: float = 0.7, repair: real.Repair = real.as_is
) -> Trained:
    """Few rows a batch, from whose noise training itself suffers."""
    model, data = repair(dense(0.99, depth=depth), batched(blobs(1024, spread=spread), size))
    return fit(run, compiled(model), data, 3)


def small_batches_of_images(run: str) -> Trained:
    """Four images hold hundreds of pixels a channel."""
    return fit(run, compiled(convolutional(0.99), 3e-3), batched(images(512), 4), 6)


# --- layers that are called several times --------------------------------------------------------------


def over_time(run: str, wrap: Wrap = kl.TimeDistributed, trend: float = 1.0, nested: bool = False) -> Trained:
    """Sequences whose steps differ in their means; ``wrap`` is what applies a layer to each step."""
    z = rng(1).normal(size=(1024, 5, 8))
    y = np.argmax(z.sum(1) @ rng(2).normal(size=(8, 3)), 1)
    x = (z + trend * np.arange(5)[None, :, None]).astype("float32")
    inputs = hidden = keras.Input((5, 8))
    if nested:
        part = keras.Sequential([keras.Input((8,)), kl.Dense(16), batch_norm(0.9), kl.ReLU()])
        hidden = wrap(part)(hidden)
    else:
        for _ in range(2):
            hidden = kl.ReLU()(wrap(batch_norm(0.9))(kl.Dense(16)(hidden)))
    model = keras.Model(inputs, kl.Dense(3)(kl.GlobalAveragePooling1D()(hidden)))
    return fit(run, compiled(model, 3e-3), batched((x, y.astype("int32"))), 8)


# --- validation ----------------------------------------------------------------------------------------


def validated(run: str, validation: Any, data: Any = None, model: Any = None, epochs: int = 8) -> Trained:
    model, data = model or dense(0.9), data or batched(blobs(1024, spread=0.8))
    return fit(run, compiled(model, 3e-3), data, epochs, validation_data=validation)


def other_scale(run: str) -> Trained:
    return validated(run, blobs(320, seed=8, spread=0.8, scale=4.0))


def constant_in_training(run: str) -> Trained:
    """Two columns never vary in training, and do in validation."""
    (x, y), (xv, yv) = blobs(1024, spread=0.8), blobs(320, seed=8, spread=0.8)
    x, xv = np.pad(x, ((0, 0), (0, 2))), np.pad(xv, ((0, 0), (0, 2)))
    xv[:, 16:] = rng(1).random((320, 2)) < 0.3
    inputs = keras.Input((18,))
    hidden = batch_norm(0.9)(inputs)
    hidden = kl.ReLU()(batch_norm(0.9)(kl.Dense(32)(hidden)))
    return validated(run, (xv, yv), batched((x, y)), keras.Model(inputs, kl.Dense(4)(hidden)))


def learned_by_heart(run: str) -> Trained:
    data = batched(blobs(128, spread=0.3))
    return validated(run, blobs(320, seed=8, spread=0.3), data, dense(0.9, width=128), 40)


def same_kind(run: str) -> Trained:
    return validated(run, blobs(320, seed=8, spread=0.8))


def augmented(run: str) -> Trained:
    """Inputs are noisy in training and clean in validation."""
    data = batched(blobs(1024, spread=0.8)).map(lambda x, y: (x + tf.random.normal(tf.shape(x), 0, 0.3), y))
    return validated(run, blobs(320, seed=8, spread=0.8), data)


def imbalanced(run: str) -> Trained:
    """Nineteen rows of twenty are of one class."""
    x, y = blobs(2048)
    keep = (y == 0) | (rng(4).random(len(y)) < 0.02)
    x, y = np.concatenate([x[keep]] * 3), np.concatenate([y[keep]] * 3)
    return fit(run, compiled(dense(0.9), 3e-3), batched((x, (y > 0).astype("int32"))), 8)


def dropout_after(run: str) -> Trained:
    inputs = keras.Input((16,))
    x = inputs
    for _ in range(2):
        x = kl.ReLU()(batch_norm(0.9)(kl.Dense(48)(x)))
    model = keras.Model(inputs, kl.Dense(4)(kl.Dropout(0.3)(x)))
    return fit(run, compiled(model, 3e-3), batched(blobs(1536)), 8)


FAULTS: dict[str, tuple[Build, str, set[str]]] = {
    "hard-wired": (hard_wired, "ignores-statistics", {"warning", "error"}),
    "hard-wired in one layer": (
        lambda run: hard_wired(run, (False, True)),
        "ignores-statistics",
        {"warning", "error"},
    ),
    "sorted images": (sorted_images, "unlike-batches", {"warning", "error"}),
    "sorted by target": (sorted_by_target, "unlike-batches", {"warning", "error"}),
    "sorted, two classes": (sorted_two_classes, "unlike-batches", {"warning", "error"}),
    "sites in turn": (in_turn, "unlike-batches", {"warning", "error"}),
    "three sites in turn": (
        lambda run: in_turn(run, 3, 3, 0.95),
        "unlike-batches",
        {"warning", "error"},
    ),
    "class by class": (class_by_class, "unlike-batches", {"warning", "error"}),
    "a rare domain": (rare_domain, "unlike-batches", {"warning", "error"}),
    "unscaled rows in most batches": (unscaled_in_most_batches, "dominated-statistics", {"warning", "error"}),
    "glitches": (glitches, "dominated-statistics", {"warning", "error"}),
    "unscaled rows": (unscaled_rows, "dominated-statistics", {"warning", "error"}),
    "padded": (padded, "padded-rows", {"info", "warning", "error"}),
    "padded with another value": (
        lambda run: padded(run, 16, -5.0, 2),
        "padded-rows",
        {"warning", "error"},
    ),
    "memorized": (memorized, "memorized-batches", {"info"}),
    "batches of 2": (micro_batches, "noisy-training", {"info", "warning"}),
    "over time": (over_time, "alternating-domains", {"warning", "error"}),
    "over time, nested": (
        lambda run: over_time(run, nested=True),
        "alternating-domains",
        {"info", "warning", "error"},
    ),
    "another scale in validation": (other_scale, "validation-shift", {"warning", "error"}),
    "constant in training": (constant_in_training, "validation-shift", {"warning", "error"}),
    "overfitted": (learned_by_heart, "overfitting", {"info"}),
}
"""Name -> training, the cause that is named, its severities."""

LOOK_ALIKES: dict[str, Build] = {
    "training=True in a graph": hard_wired_graph,
    "closed branch": closed_branch,
    "images, shuffled": lambda run: sorted_images(run, True),
    "targets, shuffled": lambda run: sorted_by_target(run, True),
    "two classes, shuffled": lambda run: sorted_two_classes(run, True),
    "fitted again": fitted_again,
    "lognormal inputs": heavy_tailed,
    "inputs of Student's t": lambda run: heavy_tailed(run, "t"),
    "a quarter padded": always_padded,
    "weights of 0": weighted_rows,
    "noisy and reshuffled": lambda run: memorized(run, shuffle=True),
    "unshuffled and easy": unshuffled_and_easy,
    "batches of 4, shallow": lambda run: micro_batches(run, 4, 1),
    "four images": small_batches_of_images,
    "steady over time": lambda run: over_time(run, trend=0.0),
    "the whole sequence": lambda run: over_time(run, wrap=lambda layer: layer),
    "validated": same_kind,
    "augmented": augmented,
    "imbalanced": imbalanced,
    "dropout after": dropout_after,
}
"""Healthy trainings that resemble one of them."""
