"""Story 3: ``fit`` shows one loss and ``evaluate`` on the very same data another, for three different reasons.

a. The base is frozen, its BatchNorm layers go on normalizing with the batch in training, and evaluation uses the
   statistics of the data it was pretrained on. Keras did so before TensorFlow 2; a small layer does it here.
b. Dropout is on in training and off in evaluation.
c. ``fit`` measures each batch before it learns from it, ``evaluate`` afterwards. With 1,024 noisy inputs and a high
   learning rate every step learns its own batch by heart.

Measured at the end of training, on the training data, seeds 0, 1 and 2 (in c the batches of the second half, each
just before and just after its step):

=========================== ================ ================ ================ ================
run                         training         batch            inference        after the update
=========================== ================ ================ ================ ================
a, frozen, batch statistics 0.35 0.36 0.36   0.35 0.36 0.36   4.9 7.3 6.0
b, dropout                  0.67 0.70 0.69   0.46 0.48 0.47   0.44 0.46 0.47
c, before the update        0.31 0.30 0.31   0.31 0.30 0.31   0.31 0.30 0.31   0.14 0.13 0.14
=========================== ================ ================ ================ ================
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tb_bnlens import BNLens

LENGTH = 64
WAVES = 4

Arrays = tuple[NDArray[np.float32], NDArray[np.int64]]


def recordings(count: int, seed: int, gain: float = 1.0, offset: float = 0.0) -> Arrays:
    """``(signals [count, 64, 1], waveform [count])``: sine, square, sawtooth or pulses, in noise."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, WAVES, count)
    cycles = rng.uniform(2, 5, (count, 1))
    phase = (cycles * np.linspace(0, 1, LENGTH) + rng.uniform(0, 1, (count, 1))) % 1
    waves = np.stack([np.sin(2 * np.pi * phase), np.sign(phase - 0.5), 2 * phase - 1, 2.0 * (phase < 0.15) - 0.3])
    signals = waves[kind, np.arange(count)] + rng.normal(0, 0.8, (count, LENGTH))
    return (gain * signals + offset)[..., None].astype(np.float32), kind


class FormerBatchNormalization(keras.layers.BatchNormalization):
    """BatchNorm as Keras had it before TensorFlow 2: frozen, it keeps its statistics and trains on the batch's."""

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        if not training or self.trainable:
            return super().call(inputs, training=training, mask=mask)
        mean, variance = keras.ops.moments(inputs, axes=list(range(len(inputs.shape) - 1)))
        return keras.ops.batch_normalization(
            inputs, mean, variance, axis=-1, offset=self.beta, scale=self.gamma, epsilon=self.epsilon
        )


def pretrained_base(normalization: type[keras.layers.Layer], seed: int) -> keras.Model:
    """Three convolutions, trained for 300 steps on recordings of the first microphone, then frozen."""
    base = keras.Sequential([keras.Input((LENGTH, 1))], name="base")
    for block, width in enumerate((16, 32, 32), 1):
        base.add(keras.layers.Conv1D(width, 5, strides=2, use_bias=False))
        base.add(normalization(momentum=0.9, name=f"block_{block}_bn"))
        base.add(keras.layers.ReLU())
    base.add(keras.layers.GlobalAveragePooling1D())
    model = keras.Sequential([base, keras.layers.Dense(WAVES)])
    model.compile(keras.optimizers.Adam(0.003), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*recordings(3200, 1000 + seed), batch_size=32, epochs=3, verbose=0)
    base.trainable = False
    return base


def train_on_frozen_base(
    log_dir: str,
    *,
    normalization: type[keras.layers.Layer] = keras.layers.BatchNormalization,
    gain: float = 1.0,
    offset: float = 0.0,
    dropout: float = 0.0,
    seed: int = 0,
) -> keras.Model:
    """Train a new head on the recordings of another microphone, or of the same one."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([pretrained_base(normalization, seed)])
    for layer in (keras.layers.Dense(32, activation="relu"), keras.layers.Dense(WAVES)):
        if dropout:
            model.add(keras.layers.Dropout(dropout))
        model.add(layer)
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = recordings(5120, seed, gain, offset)
    model.fit(x, y, batch_size=256, epochs=20, verbose=2, callbacks=[BNLens(log_dir)])
    return model


def train_plain_network(log_dir: str, *, seed: int = 0) -> keras.Model:
    """Train two dense layers, with neither BatchNorm nor dropout, to tell the level of 1,024 noisy readings."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    level = rng.uniform(-1, 1, (6400, 1))
    x = ((0.3 * level + rng.normal(0, 1, (6400, 1024))) / 4).astype(np.float32)
    y = (level + rng.normal(0, 0.5, (6400, 1))).astype(np.float32)
    model = keras.Sequential([keras.layers.Dense(32, activation="tanh"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.2), "mean_squared_error")
    model.fit(x, y, batch_size=16, verbose=2, callbacks=[BNLens(log_dir)])
    return model


RUNS: dict[str, Callable[..., object]] = {
    "a-frozen-but-trained-on-batch-statistics": partial(
        train_on_frozen_base, normalization=FormerBatchNormalization, gain=0.3, offset=1.0
    ),
    "b-dropout": partial(train_on_frozen_base, dropout=0.6),
    "c-loss-before-the-update": train_plain_network,
}
