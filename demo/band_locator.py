"""Story 1: the momentum is too high for the length of the run.

MobileNetV2 must say in which column a bright band begins. Every BatchNorm layer of ``keras.applications`` MobileNetV2
has a momentum of 0.999, so that after 400 steps two thirds of the moving statistics are still their initial values:
``fit`` shows a network that works, ``predict`` answers the same for every image.

Measured on fresh data after 400 steps (squared error; batch statistics against moving ones, same weights). The
momentum does not touch training, so both runs of a seed have the same weights:

===== ====== ============ =======
seed  batch  at 0.999     at 0.9
===== ====== ============ =======
0     2.3    1,509        2.1
1     1.1    1,214        1.5
2     2.5    1,597        4.8
===== ====== ============ =======
"""

from __future__ import annotations

from functools import partial

import keras
import tensorflow as tf

from tb_bnlens import BNLens


def batches(width: int, batch: int, seed: int) -> tf.data.Dataset:
    """Endless ``(images [batch, 32, width, 1], first columns [batch, 1])``: a bright band in unit noise."""

    def make(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        start = tf.random.stateless_uniform([batch, 1], (seed, 2 * step), 0, width - 8, tf.int64)
        noise = tf.random.stateless_normal([batch, 32, width, 1], (seed, 2 * step + 1))
        column = tf.range(width, dtype=tf.int64)
        band = tf.cast((column >= start) & (column < start + 8), tf.float32)
        return noise + 4.0 * band[:, None, :, None], tf.cast(start, tf.float32)

    return tf.data.Dataset.counter().map(make).prefetch(2)


def network(width: int, alpha: float, momentum: float) -> keras.Model:
    """MobileNetV2 under one linear unit."""
    base = keras.applications.MobileNetV2((32, width, 1), alpha=alpha, include_top=False, weights=None)
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum
    return keras.Sequential([base, keras.layers.Flatten(), keras.layers.Dense(1)])


def train(log_dir: str, *, momentum: float, full: bool = False, seed: int = 0) -> keras.Model:
    """Train for 400 steps; ``full`` is the story as it happened, with wide images and batches of 100."""
    keras.utils.set_random_seed(seed)
    width, alpha, batch = (320, 0.5, 100) if full else (96, 0.35, 16)
    epochs, steps = (40, 10) if full else (8, 50)

    model = network(width, alpha, momentum)
    rate = keras.optimizers.schedules.ExponentialDecay(0.01, 1000, 0.9)
    model.compile(keras.optimizers.Adam(rate), "mean_squared_error")
    model.fit(
        batches(width, batch, seed),
        epochs=epochs,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=2,
        callbacks=[BNLens(log_dir)],
    )
    return model


RUNS = {
    "momentum-0.999": partial(train, momentum=0.999),
    "momentum-0.9": partial(train, momentum=0.9),
}
FULL_RUNS = {name: partial(run, full=True) for name, run in RUNS.items()}
