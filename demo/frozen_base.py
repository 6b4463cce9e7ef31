"""Story 4: the frozen base's statistics come from other data, and only sometimes is that a fault.

A small BatchNorm network learns to tell the direction of stripes. Frozen, it is used on images of another kind:

* dim and bright ones, under the head that it came with: the old statistics squash the features, and a head that is
  tuned a little cannot make up for it. With the batch's statistics the network is as good as it was. Harmful.
* ones of four times the contrast, under a new head: the statistics fit no better, but the head has learned with
  what they make of the images. Harmless, and putting better statistics in would break it.

Measured at the end of training, on the training data (mean over batches of 32), seeds 0, 1 and 2:

======================== ================= ===================
run                      batch             inference
======================== ================= ===================
harmful-dim-images       0.04 0.10 0.07    1.43 1.35 0.90
harmless-strong-contrast 0.38 0.23 0.15    0.004 0.002 0.002
======================== ================= ===================
"""

from __future__ import annotations

from functools import partial

import keras
import numpy as np
from numpy.typing import NDArray

from tb_bnlens import BNLens

SIZE = 24
DIRECTIONS = 8


def stripes(
    count: int, seed: int, contrast: float = 1.0, brightness: float = 0.0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """``(images [count, 24, 24, 1], direction [count])``: stripes in one of eight directions, in noise."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, DIRECTIONS, count)
    angle = (np.pi * kind / DIRECTIONS)[:, None, None]
    rows, columns = np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")
    frequency, phase = rng.uniform(0.6, 1.2, (count, 1, 1)), rng.uniform(0, 2 * np.pi, (count, 1, 1))
    images = np.sin(frequency * (columns * np.cos(angle) + rows * np.sin(angle)) + phase)
    images += rng.normal(0, 0.7, images.shape)
    return (contrast * images + brightness)[..., None].astype(np.float32), kind


def pretrained_model(seed: int) -> keras.Model:
    """Three convolutions and a head, trained for 300 steps on images of contrast 1 and brightness 0."""
    base = keras.Sequential([keras.Input((SIZE, SIZE, 1))], name="base")
    for block, (width, size) in enumerate(((16, 5), (32, 3), (32, 3)), 1):
        base.add(keras.layers.Conv2D(width, size, strides=2, use_bias=False))
        base.add(keras.layers.BatchNormalization(momentum=0.9, name=f"block_{block}_bn"))
        base.add(keras.layers.ReLU())
    base.add(keras.layers.GlobalAveragePooling2D())
    model = keras.Sequential([base, keras.layers.Dense(DIRECTIONS, name="head")])
    model.compile(keras.optimizers.Adam(0.003), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*stripes(4800, 1000 + seed), batch_size=32, epochs=2, verbose=0)
    return model


def train(
    log_dir: str, *, contrast: float, brightness: float, new_head: bool, learning_rate: float, seed: int = 0
) -> keras.Model:
    """Freeze the base and train the head on top of it, the pretrained one or a new one."""
    keras.utils.set_random_seed(seed)
    model = pretrained_model(seed)
    base = model.get_layer("base")
    base.trainable = False
    if new_head:
        model = keras.Sequential([base, keras.layers.Dense(DIRECTIONS, name="head")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(learning_rate), loss, metrics=["accuracy"])
    x, y = stripes(3200, seed, contrast, brightness)
    model.fit(x, y, batch_size=32, epochs=5, verbose=2, callbacks=[BNLens(log_dir)])
    return model


RUNS = {
    "harmful-dim-images": partial(train, contrast=0.3, brightness=1.0, new_head=False, learning_rate=1e-3),
    "harmless-strong-contrast": partial(train, contrast=4.0, brightness=0.0, new_head=True, learning_rate=1e-2),
}
