"""Story 2: the weights move faster than the statistics can follow.

A network of inverted-residual blocks draws a heatmap where the ring is. At a learning rate of 0.03 with weight decay
its activations drift from step to step, and the moving statistics trail so far behind that inference draws nothing,
while training mode is fine, on validation data too. A lower momentum shortens the lag and does not end it. Once the
rate drops, the statistics catch up.

Measured on fresh data (summed squared error; an empty heatmap costs 3.05), seeds 0, 1 and 2:

========================== ================== ===================================== =============================
run                        batch              inference                             had the momentum been 0.9
========================== ================== ===================================== =============================
rate 0.03, step 400        0.14 0.14 0.13     3.06 3.07 3.05                        1.94 0.94 0.34
rate 0.03, step 600        0.22 0.35 0.09     3.06 3.07 3.05                        1.15 2.26 1.72
rate 0.03, step 800        0.18 0.23 0.57     4.9 3.2 99.9                          0.31 6.66 9.74
then 0.0001, step 800      0.14 0.15 0.08     2.57 2.52 1.15                        0.15 0.15 0.08
then 0.0001, step 1,200    0.11 0.10 0.08     0.12 0.12 0.08                        0.12 0.10 0.08
========================== ================== ===================================== =============================

The weight decay matters: it keeps the weights small, so that every step turns them by much.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import keras
import tensorflow as tf

from tb_bnlens import BNLens

SIZE = 20
BATCH = 8


def batches(seed: int) -> tf.data.Dataset:
    """Endless ``(images [8, 20, 20, 1], heatmaps [8, 20, 20, 1])``: find the ring beside two squares."""
    rows, columns = tf.meshgrid(tf.range(SIZE, dtype=tf.float32), tf.range(SIZE, dtype=tf.float32), indexing="ij")

    def make(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        places = tf.random.stateless_uniform([BATCH, 6, 1, 1], (seed, 3 * step), 3, SIZE - 4)
        contrast = tf.random.stateless_uniform([BATCH, 1, 1], (seed, 3 * step + 1), 0.7, 1.3)
        noise = tf.random.stateless_normal([BATCH, SIZE, SIZE], (seed, 3 * step + 2), stddev=0.1)
        squared = (rows - places[:, 0]) ** 2 + (columns - places[:, 1]) ** 2
        shapes = tf.cast(tf.abs(tf.sqrt(squared) - 3) < 0.7, tf.float32)
        for i in (1, 2):
            away = tf.maximum(tf.abs(rows - places[:, 2 * i]), tf.abs(columns - places[:, 2 * i + 1]))
            shapes += tf.cast(tf.abs(away - 2) < 0.7, tf.float32)
        return (contrast * shapes + noise)[..., None], tf.exp(-squared / 2)[..., None]

    return tf.data.Dataset.counter().map(make).prefetch(8)


def network(momentum: float) -> keras.Model:
    """Five inverted-residual blocks without the residual sum, and a 1x1 convolution that draws the heatmap."""

    def normalized(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return keras.layers.BatchNormalization(momentum=momentum, name=f"{name}_bn")(x)

    def relu6(x: keras.KerasTensor) -> keras.KerasTensor:
        return keras.layers.ReLU(6.0)(x)

    inputs = keras.Input((SIZE, SIZE, 1))
    x = relu6(normalized(keras.layers.Conv2D(12, 3, padding="same", use_bias=False)(inputs), "stem"))
    for block in range(1, 6):
        x = relu6(normalized(keras.layers.Conv2D(36, 1, use_bias=False)(x), f"block_{block}_expand"))
        x = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        x = relu6(normalized(x, f"block_{block}_depthwise"))
        x = normalized(keras.layers.Conv2D(12, 1, use_bias=False)(x), f"block_{block}_project")
    return keras.Model(inputs, keras.layers.Conv2D(1, 1, activation="sigmoid")(x))


def heatmap_error(target: tf.Tensor, heatmap: tf.Tensor) -> tf.Tensor:
    """Squared error summed over the image, [batch]."""
    return tf.reduce_sum(tf.square(target - heatmap), axis=(1, 2, 3))


def train(
    log_dir: str,
    *,
    learning_rate: float = 0.03,
    drop_at: int | None = None,
    momentum: float = 0.99,
    steps: int = 800,
    seed: int = 0,
) -> keras.Model:
    """Train at a steady learning rate, or at 1e-4 from step ``drop_at`` on."""
    keras.utils.set_random_seed(seed)
    model = network(momentum)
    rate = learning_rate
    if drop_at is not None:
        rate = keras.optimizers.schedules.PiecewiseConstantDecay([drop_at], [learning_rate, 1e-4])
    model.compile(keras.optimizers.Adam(rate, weight_decay=0.1), heatmap_error)
    model.fit(
        batches(seed),
        epochs=steps // 100,
        steps_per_epoch=100,
        shuffle=False,
        verbose=2,
        callbacks=[BNLens(log_dir, validation_data=batches(seed + 1000).take(4))],
    )
    return model


RUNS: dict[str, Callable[..., object]] = {
    "rate-0.03": train,
    "rate-0.03-momentum-0.9": partial(train, momentum=0.9),
    "rate-0.03-then-0.0001": partial(train, drop_at=600, steps=1300),
}
