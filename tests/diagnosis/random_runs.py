"""Trainings that nobody has seen: drawn at random, with what is true of them found by other means than the lens.

The truth is taken on batches of the training data: the inference loss, the loss with every batch's own statistics
and dropout off, and the inference loss on the mean statistics of many batches. A twin of the network gives them,
with the same weights, without dropout and with momentum 0, so that its moving statistics are the last batch's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from tests.diagnosis.healthy import images
from tests.diagnosis.real_runs import Trained, batched, blobs, cross_entropy, fit

TRUTH_BATCHES = 48
MOST_STEPS = 1200


@dataclass(frozen=True)
class Drawn:
    """One training, by what was drawn."""

    kind: str
    momentum: float
    depth: int
    width: int
    dropout: float
    batch: int
    optimizer: str
    rate: float
    epochs: int
    scale: float
    spread: float
    activation: str

    def network(self, momentum: float, dropout: float) -> Any:
        """The model, with these two in place of the drawn ones."""

        def normalized(x: Any) -> Any:
            x = kl.Activation(self.activation)(kl.BatchNormalization(momentum=momentum)(x))
            return kl.Dropout(dropout)(x) if dropout else x

        if self.kind in ("dense", "regression"):
            inputs = x = keras.Input((16,))
            for _ in range(self.depth):
                x = normalized(kl.Dense(self.width, use_bias=False)(x))
        elif self.kind == "conv":
            inputs = x = keras.Input((12, 12, 1))
            for _ in range(self.depth):
                x = normalized(kl.Conv2D(self.width // 2, 3, padding="same", use_bias=False)(x))
            x = kl.GlobalAveragePooling2D()(x)
        elif self.kind == "residual":
            inputs = keras.Input((16,))
            x = kl.Dense(self.width)(inputs)
            for _ in range(self.depth):
                x = kl.Add()([x, kl.Dense(self.width)(normalized(x))])
        else:
            inputs = keras.Input((8, 2))
            x = kl.LSTM(self.width)(inputs)
            x = normalized(kl.Dense(self.width)(x))
        return keras.Model(inputs, kl.Dense(1 if self.kind == "regression" else 4)(x))

    def data(self) -> Any:
        """Shuffled batches, the last one left out where it is short."""
        size = 1024 if self.kind == "conv" else 2048
        x, y = images(size) if self.kind == "conv" else blobs(size, spread=self.spread)
        if self.kind == "regression":
            y = (np.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3]).astype("float32")
        x = x * np.float32(self.scale)
        return batched((x.reshape(len(x), 8, 2) if self.kind == "recurrent" else x, y), self.batch)

    def loss(self) -> Any:
        """Squared error or cross-entropy."""
        return keras.losses.MeanSquaredError() if self.kind == "regression" else cross_entropy()

    def train(self, run: str) -> Trained:
        """Train and record."""
        model, data = self.network(self.momentum, self.dropout), self.data()
        made = {
            "adam": lambda: keras.optimizers.Adam(self.rate),
            "sgd": lambda: keras.optimizers.SGD(20 * self.rate, momentum=0.9),
            "rmsprop": lambda: keras.optimizers.RMSprop(self.rate),
            "adamw": lambda: keras.optimizers.AdamW(self.rate, weight_decay=0.05),
        }[self.optimizer]()
        model.compile(made, self.loss())
        steps = min(self.epochs * int(data.cardinality()), MOST_STEPS)
        return fit(run, model, data.repeat().take(steps), 1)


def drawn(seed: int) -> Drawn:
    """A training that somebody might run, by chance."""
    rng = np.random.default_rng(10_000 + seed)

    def one_of(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    return Drawn(
        kind=one_of("dense", "regression", "conv", "residual", "recurrent"),
        momentum=one_of(0.5, 0.8, 0.9, 0.9, 0.95, 0.99, 0.99, 0.99, 0.997, 0.999, 0.9997),
        depth=one_of(1, 2, 3, 4, 6),
        width=one_of(8, 16, 32, 64),
        dropout=one_of(0.0, 0.0, 0.0, 0.2, 0.5),
        batch=one_of(2, 4, 8, 16, 32, 32, 64, 128),
        optimizer=one_of("adam", "adam", "sgd", "rmsprop", "adamw"),
        rate=one_of(1e-4, 1e-3, 1e-3, 3e-3, 1e-2, 3e-2),
        epochs=one_of(1, 3, 6, 12, 25),
        scale=one_of(0.1, 1.0, 1.0, 3.0),
        spread=one_of(0.5, 1.0, 1.5),
        activation=one_of("relu", "relu", "tanh", "gelu"),
    )


@dataclass(frozen=True)
class Truth:
    """Mean losses over batches of the training data."""

    inference: float
    batch: float
    recalibrated: float
    start: float
    """Inference loss of the network before it was trained, the measure of what training has gained."""


def truth(of: Drawn, model: Any, data: Any) -> Truth:
    """Measured with a twin of the network; nothing of the lens takes part."""
    loss, batches = of.loss(), list(data.take(TRUTH_BATCHES))
    twin = of.network(momentum=0.0, dropout=0.0)
    norms = [layer for layer in twin.layers if isinstance(layer, kl.BatchNormalization)]
    start = _mean_loss(twin, batches, loss)
    kept = [[v for v in m.weights if "seed" not in v.path] for m in (twin, model)]
    for mine, own in zip(*kept, strict=True):
        mine.assign(own)
    inference = _mean_loss(twin, batches, loss)

    @tf.function(reduce_retracing=True)
    def in_batch_mode(x: Any, y: Any) -> Any:
        return loss(y, twin(x, training=True))

    of_batches, statistics = [], []
    for x, y in batches:
        of_batches.append(float(in_batch_mode(x, y)))
        statistics.append([(n.moving_mean.numpy(), n.moving_variance.numpy()) for n in norms])
    for layer, pairs in zip(norms, zip(*statistics, strict=True), strict=True):
        layer.moving_mean.assign(np.mean([mean for mean, _ in pairs], 0))
        layer.moving_variance.assign(np.mean([variance for _, variance in pairs], 0))
    return Truth(inference, float(np.mean(of_batches)), _mean_loss(twin, batches, loss), start)


def _mean_loss(model: Any, batches: Any, loss: Any) -> float:
    @tf.function(reduce_retracing=True)
    def infer(x: Any, y: Any) -> Any:
        return loss(y, model(x, training=False))

    return float(np.mean([float(infer(x, y)) for x, y in batches]))
