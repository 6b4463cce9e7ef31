"""Small trainings of many kinds, each recorded by the lens with the truth measured beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from tb_bnlens import BNLens
from tests.calibration.truth import Truth

optimizers, schedules = keras.optimizers, keras.optimizers.schedules


def norm(momentum: float) -> Any:
    """The layer under test."""
    return kl.BatchNormalization(momentum=momentum)


def dense(momentum: float, width: int = 32, depth: int = 3, activation: str = "relu") -> Any:
    """[16] -> 4 classes."""
    inputs = x = keras.Input((16,))
    for _ in range(depth):
        x = kl.Activation(activation)(norm(momentum)(kl.Dense(width, use_bias=False)(x)))
    return keras.Model(inputs, kl.Dense(4)(x))


def conv(momentum: float, width: int = 8, depth: int = 3) -> Any:
    """[8, 8, 1] -> 4 classes, a plain stack."""
    inputs = x = keras.Input((8, 8, 1))
    for _ in range(depth):
        x = kl.ReLU()(norm(momentum)(kl.Conv2D(width, 3, padding="same", use_bias=False)(x)))
    return keras.Model(inputs, kl.Dense(4)(kl.GlobalAveragePooling2D()(x)))


def residual(momentum: float, width: int = 8, blocks: int = 2) -> Any:
    """[8, 8, 1] -> 4 classes, sums as in a ResNet."""

    def block(x: Any) -> Any:
        return norm(momentum)(kl.Conv2D(width, 3, padding="same", use_bias=False)(x))

    inputs = keras.Input((8, 8, 1))
    x = kl.ReLU()(block(inputs))
    for _ in range(blocks):
        x = kl.ReLU()(kl.Add()([x, block(kl.ReLU()(block(x)))]))
    return keras.Model(inputs, kl.Dense(4)(kl.GlobalAveragePooling2D()(x)))


def separable(momentum: float, width: int = 12) -> Any:
    """[8, 8, 1] -> 4 classes, depthwise convolutions as in a MobileNet."""
    inputs = keras.Input((8, 8, 1))
    x = kl.ReLU()(norm(momentum)(kl.Conv2D(width, 3, padding="same", use_bias=False)(inputs)))
    for _ in range(2):
        x = kl.ReLU(6.0)(norm(momentum)(kl.DepthwiseConv2D(3, padding="same", use_bias=False)(x)))
        x = kl.ReLU(6.0)(norm(momentum)(kl.Conv2D(width, 1, use_bias=False)(x)))
    return keras.Model(inputs, kl.Dense(4)(kl.GlobalAveragePooling2D()(x)))


def dense_sums(momentum: float, width: int = 24, blocks: int = 3) -> Any:
    """[16] -> 4 classes, dense layers whose outputs are added to their inputs, gelu."""
    inputs = keras.Input((16,))
    x = kl.Dense(width)(inputs)
    for _ in range(blocks):
        y = kl.Dense(width, use_bias=False)(kl.Activation("gelu")(norm(momentum)(x)))
        x = kl.Add()([x, y])
    return keras.Model(inputs, kl.Dense(4)(norm(momentum)(x)))


def bottleneck(momentum: float) -> Any:
    """[16] -> 4 classes, wide and narrow layers in turn."""
    inputs = x = keras.Input((16,))
    for width in (64, 12, 48):
        x = kl.LeakyReLU(negative_slope=0.1)(norm(momentum)(kl.Dense(width, use_bias=False)(x)))
    return keras.Model(inputs, kl.Dense(4)(x))


def sequence(momentum: float, width: int = 10) -> Any:
    """[16] -> 4 classes, read as a sequence by 1-D convolutions with elu."""
    inputs = keras.Input((16,))
    x = kl.Reshape((16, 1))(inputs)
    for _ in range(3):
        x = kl.Activation("elu")(norm(momentum)(kl.Conv1D(width, 3, padding="same", use_bias=False)(x)))
    return keras.Model(inputs, kl.Dense(4)(kl.Flatten()(x)))


def preactivated(momentum: float, width: int = 8) -> Any:
    """[8, 8, 1] -> 4 classes, normalized before the convolutions, with strides."""
    inputs = keras.Input((8, 8, 1))
    x = kl.Conv2D(width, 3, padding="same")(inputs)
    for strides in (1, 2):
        y = kl.Conv2D(width, 3, strides, padding="same")(kl.ReLU()(norm(momentum)(x)))
        y = kl.Conv2D(width, 3, padding="same")(kl.ReLU()(norm(momentum)(y)))
        x = kl.Add()([kl.Conv2D(width, 1, strides)(x), y])
    return keras.Model(inputs, kl.Dense(4)(kl.GlobalAveragePooling2D()(kl.ReLU()(norm(momentum)(x)))))


def blobs(n: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Any:
    """Four classes whose borders are curved: (x [n, 16], y [n])."""
    centers = np.random.default_rng(99).normal(size=(8, 16))
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 8, n)
    x = (centers[kind] + rng.normal(size=(n, 16))) * scale + shift
    return x.astype("float32"), (kind % 4).astype("int32")


def stripes(n: int, seed: int, noise: float = 0.7) -> Any:
    """Four directions of stripes in noise, (x [n, 8, 8, 1], y [n])."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n)
    angle, phase = (np.pi * y / 4)[:, None, None], rng.uniform(0, 2 * np.pi, (n, 1, 1))
    rows, columns = np.meshgrid(np.arange(8), np.arange(8), indexing="ij")
    x = np.sin(columns * np.cos(angle) + rows * np.sin(angle) + phase) + rng.normal(0, noise, (n, 8, 8))
    return x[..., None].astype("float32"), y.astype("int32")


@dataclass(frozen=True)
class Training:
    """One training: a network, an optimizer and the sizes of its batches."""

    network: Callable[[float], Any]
    momentum: float
    steps: int
    optimizer: Callable[[], Any]
    batch: int = 32
    data: Callable[[int, int], Any] = blobs
    kind: str = ""
    """What is special about it, for the table of results."""
    later_batch: int | None = None
    """Size of the batches of the second half, where it is another one."""
    before: Callable[[], Any] | None = None
    """Optimizer of a training on other data that comes first and is not recorded, for fine-tuning."""
    rate: float = 1e-3
    """Highest learning rate, for the table of results."""
    samples: int = 2048


def stream(xy: Any, size: int, steps: int, seed: int) -> Any:
    """Shuffled batches without end, cut after so many; NumPy, as tf.data costs more than these steps."""
    x, y = xy
    rng = np.random.default_rng(seed)
    per_epoch = len(x) // size
    for step in range(steps):
        if step % per_epoch == 0:
            order = rng.permutation(len(x))
        at = order[(step % per_epoch) * size :][:size]
        yield x[at], y[at]


def record(training: Training, run: str, seed: int, overhead: float = math.inf) -> dict[str, Any]:
    """Train with the lens writing to ``run``; returns the arrays of the truth, ``Curve.arrays``."""
    keras.utils.set_random_seed(seed)
    t = training
    xy = t.data(t.samples, seed)
    model = t.network(t.momentum)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # ``shuffle=False``: Keras warns of data that it cannot shuffle.
    if t.before is not None:
        other = t.data(t.samples, seed + 1000)
        other = (np.flip(other[0], -1) * 0.7 + 0.3 if other[0].ndim == 2 else np.flip(other[0], 1) * 0.7, other[1])
        model.compile(t.before(), loss, jit_compile=False)
        model.fit(signed(other, t.batch, 600, seed), steps_per_epoch=600, shuffle=False, verbose=0)
    model.compile(t.optimizer(), loss, jit_compile=False)
    sizes = [t.batch] if t.later_batch is None else [t.batch, t.later_batch]
    total, (x, y) = t.steps, xy
    inputs, labels = held(xy, t.batch, seed)
    curves = Truth(inputs, labels, total)
    lens = BNLens(run, on_error="raise", overhead=overhead)

    def batches() -> Any:
        for i, size in enumerate(sizes):
            yield from stream((x, y), size, total // len(sizes), seed + i)

    model.fit(as_dataset(batches, xy), steps_per_epoch=total, shuffle=False, verbose=0, callbacks=[curves, lens])
    return curves.curve.arrays()


def signed(xy: Any, size: int, steps: int, seed: int) -> Any:
    """A stream as ``fit`` takes it."""
    return as_dataset(lambda: stream(xy, size, steps, seed), xy)


def as_dataset(batches: Callable[[], Any], xy: Any) -> Any:
    """A generator of batches as a dataset whose batches may differ in size."""
    signature = (tf.TensorSpec((None, *xy[0].shape[1:]), tf.float32), tf.TensorSpec((None,), tf.int32))
    return tf.data.Dataset.from_generator(batches, output_signature=signature)


def held(xy: Any, size: int, seed: int) -> Any:
    """All samples in batches of the size that training uses, [B, n, ...] and [B, n]."""
    order = np.random.default_rng(seed + 7).permutation(len(xy[0]))
    count = len(order) // size
    return tuple(part[order][: count * size].reshape(count, size, *part.shape[1:]) for part in xy)


def constant(optimizer: Any, rate: float, **options: Any) -> Callable[[], Any]:
    """An optimizer at one learning rate."""
    return lambda: optimizer(rate, **options)


def scheduled(optimizer: Any, schedule: Callable[[], Any], **options: Any) -> Callable[[], Any]:
    """An optimizer whose learning rate follows a schedule."""
    return lambda: optimizer(schedule(), **options)


def warm_up(rate: float, steps: int, rise: float) -> Callable[[], Any]:
    """Cosine decay after a linear rise over this share of the steps."""
    up = int(rise * steps)
    return lambda: schedules.CosineDecay(0.0, steps - up, warmup_target=rate, warmup_steps=up)


def cosine(rate: float, steps: int) -> Callable[[], Any]:
    return lambda: schedules.CosineDecay(rate, steps)


def drops(rate: float, at: list[int]) -> Callable[[], Any]:
    """A tenth of the rate after each of these steps."""
    return lambda: schedules.PiecewiseConstantDecay(at, [rate * 0.1**i for i in range(len(at) + 1)])


Adam, AdamW, SGD = optimizers.Adam, optimizers.AdamW, optimizers.SGD
IMAGES: dict[str, Any] = {"data": stripes, "samples": 1024}


def wide(data: Callable[..., Any], scale: float) -> Callable[[int, int], Any]:
    """Blobs at another scale: small ones make the first layers start far above their variance."""
    return lambda n, seed: data(n, seed, scale)


CALIBRATION: dict[str, Training] = {
    "dense 0.99": Training(dense, 0.99, 1500, constant(Adam, 1e-3), kind="Adam 1e-3"),
    "dense 0.97 small": Training(dense, 0.97, 800, constant(Adam, 1e-3), data=wide(blobs, 0.2), kind="Adam 1e-3"),
    "residual 0.98": Training(residual, 0.98, 900, constant(Adam, 1e-3), kind="Adam 1e-3", **IMAGES),
    "conv 0.99 b64": Training(conv, 0.99, 1200, constant(Adam, 1e-3), 64, kind="Adam 1e-3", **IMAGES),
    "dense 0.98 3e-4": Training(
        dense, 0.98, 800, constant(Adam, 3e-4), data=wide(blobs, 0.3), kind="Adam 3e-4", rate=3e-4
    ),
    "conv 0.97 1e-2": Training(conv, 0.97, 800, constant(Adam, 1e-2), kind="Adam 1e-2", rate=1e-2, **IMAGES),
    "dense 0.98 1e-2": Training(dense, 0.98, 900, constant(Adam, 1e-2), kind="Adam 1e-2", rate=1e-2),
    "dense 0.995 1e-2": Training(dense, 0.995, 1500, constant(Adam, 1e-2), 128, kind="Adam 1e-2", rate=1e-2),
    "dense warm-up": Training(dense, 0.98, 1000, scheduled(Adam, warm_up(3e-3, 1000, 0.2)), kind="warm-up", rate=3e-3),
    "residual warm-up": Training(
        residual, 0.97, 700, scheduled(Adam, warm_up(1e-3, 700, 0.3)), kind="warm-up", **IMAGES
    ),
    "dense cosine SGD": Training(
        dense, 0.98, 1000, scheduled(SGD, cosine(0.05, 1000), momentum=0.9), kind="cosine", rate=0.05
    ),
    "conv cosine": Training(conv, 0.98, 900, scheduled(Adam, cosine(3e-3, 900)), kind="cosine", rate=3e-3, **IMAGES),
    "dense drops": Training(dense, 0.99, 1200, scheduled(Adam, drops(5e-3, [480, 840])), kind="rate drops", rate=5e-3),
    "residual drops": Training(
        residual, 0.97, 700, scheduled(SGD, drops(0.1, [210, 420]), momentum=0.9), kind="rate drops", rate=0.1, **IMAGES
    ),
    "dense fine-tuned": Training(
        dense, 0.99, 900, constant(Adam, 1e-4), kind="fine-tuning", before=constant(Adam, 1e-3), rate=1e-4
    ),
    "conv fine-tuned": Training(
        conv, 0.98, 700, constant(Adam, 3e-4), kind="fine-tuning", before=constant(Adam, 3e-3), rate=3e-4, **IMAGES
    ),
    "dense AdamW": Training(dense, 0.98, 900, constant(AdamW, 1e-3, weight_decay=0.05), kind="AdamW"),
    "conv AdamW 3e-3": Training(
        conv, 0.98, 800, constant(AdamW, 3e-3, weight_decay=0.05), kind="AdamW", rate=3e-3, **IMAGES
    ),
    "dense batch 32 to 128": Training(
        dense, 0.99, 1000, constant(Adam, 1e-3), 32, later_batch=128, kind="batch size changes"
    ),
    "dense b8": Training(dense, 0.99, 1200, constant(Adam, 1e-3), 8, samples=1024, kind="small batches"),
    "dense b256": Training(dense, 0.9, 500, constant(Adam, 1e-3), 256, samples=4096, kind="large batches"),
    "dense 0.999": Training(dense, 0.999, 4000, constant(Adam, 1e-3), 64, kind="momentum 0.999"),
    "residual SGD": Training(residual, 0.99, 1000, constant(SGD, 0.05, momentum=0.9), kind="SGD", rate=0.05, **IMAGES),
    "conv 0.95": Training(conv, 0.95, 500, constant(Adam, 1e-3), 64, kind="Adam 1e-3", **IMAGES),
}

CALIBRATION_2: dict[str, Training] = {
    "separable 0.98": Training(separable, 0.98, 900, constant(Adam, 1e-3), kind="Adam 1e-3", **IMAGES),
    "sums 0.99": Training(dense_sums, 0.99, 1200, constant(Adam, 1e-3), kind="Adam 1e-3"),
    "tanh 0.97": Training(
        lambda m: dense(m, 48, 2, "tanh"), 0.97, 700, constant(Adam, 1e-3), 64, wide(blobs, 0.4), kind="Adam 1e-3"
    ),
    "separable 1e-2": Training(separable, 0.97, 700, constant(Adam, 1e-2), kind="Adam 1e-2", rate=1e-2, **IMAGES),
    "sums 1e-2": Training(dense_sums, 0.98, 900, constant(Adam, 1e-2), 64, kind="Adam 1e-2", rate=1e-2),
    "separable warm-up": Training(
        separable, 0.98, 800, scheduled(Adam, warm_up(2e-3, 800, 0.25)), kind="warm-up", rate=2e-3, **IMAGES
    ),
    "sums cosine": Training(
        dense_sums, 0.98, 900, scheduled(SGD, cosine(0.05, 900), momentum=0.9), kind="cosine", rate=0.05
    ),
    "separable cosine": Training(separable, 0.97, 700, scheduled(Adam, cosine(1e-3, 700)), kind="cosine", **IMAGES),
    "sums drops": Training(
        dense_sums, 0.98, 900, scheduled(Adam, drops(5e-3, [270, 540])), kind="rate drops", rate=5e-3
    ),
    "deep drops": Training(
        lambda m: dense(m, 24, 5), 0.99, 1000, scheduled(Adam, drops(1e-3, [500])), kind="rate drops"
    ),
    "separable fine-tuned": Training(
        separable, 0.98, 700, constant(Adam, 1e-4), kind="fine-tuning", before=constant(Adam, 3e-3), rate=1e-4, **IMAGES
    ),
    "sums fine-tuned": Training(
        dense_sums, 0.99, 900, constant(Adam, 3e-4), kind="fine-tuning", before=constant(Adam, 1e-3), rate=3e-4
    ),
    "deep AdamW": Training(lambda m: dense(m, 24, 5), 0.98, 900, constant(AdamW, 1e-3, weight_decay=0.1), kind="AdamW"),
    "sums batch 64 to 16": Training(
        dense_sums, 0.98, 900, constant(Adam, 1e-3), 64, later_batch=16, kind="batch size changes"
    ),
    "tanh b8": Training(
        lambda m: dense(m, 48, 2, "tanh"), 0.99, 1000, constant(Adam, 1e-3), 8, samples=1024, kind="small batches"
    ),
    "separable b128": Training(separable, 0.9, 400, constant(Adam, 1e-3), 128, kind="large batches", **IMAGES),
    "tanh 0.999": Training(
        lambda m: dense(m, 48, 2, "tanh"), 0.999, 4000, constant(Adam, 3e-4), 64, kind="momentum 0.999", rate=3e-4
    ),
    "sums 0.95": Training(dense_sums, 0.95, 500, constant(Adam, 1e-3), 64, kind="Adam 1e-3"),
}

CALIBRATION_3: dict[str, Training] = {
    "bottleneck 0.99": Training(bottleneck, 0.99, 1200, constant(Adam, 1e-3), kind="Adam 1e-3"),
    "preactivated 0.98": Training(preactivated, 0.98, 800, constant(Adam, 1e-3), kind="Adam 1e-3", **IMAGES),
    "sequence 0.98": Training(sequence, 0.98, 800, constant(Adam, 1e-3), 64, kind="Adam 1e-3"),
    "bottleneck 1e-2": Training(bottleneck, 0.98, 800, constant(Adam, 1e-2), kind="Adam 1e-2", rate=1e-2),
    "sequence 1e-2": Training(sequence, 0.99, 900, constant(Adam, 1e-2), 64, kind="Adam 1e-2", rate=1e-2),
    "bottleneck warm-up": Training(bottleneck, 0.98, 800, scheduled(Adam, warm_up(1e-3, 800, 0.25)), kind="warm-up"),
    "sequence cosine": Training(sequence, 0.98, 800, scheduled(Adam, cosine(1e-3, 800)), kind="cosine"),
    "preactivated cosine": Training(
        preactivated, 0.97, 600, scheduled(SGD, cosine(0.05, 600), momentum=0.9), kind="cosine", rate=0.05, **IMAGES
    ),
    "bottleneck drops": Training(
        bottleneck, 0.99, 1000, scheduled(Adam, drops(3e-3, [300, 600])), kind="rate drops", rate=3e-3
    ),
    "sequence fine-tuned": Training(
        sequence, 0.99, 900, constant(Adam, 3e-4), kind="fine-tuning", before=constant(Adam, 1e-3), rate=3e-4
    ),
}

TEST: dict[str, Training] = {
    "preactivated AdamW": Training(
        preactivated, 0.98, 700, constant(AdamW, 1e-3, weight_decay=0.05), kind="AdamW", **IMAGES
    ),
    "bottleneck batch 32 to 128": Training(
        bottleneck, 0.99, 900, constant(Adam, 1e-3), 32, later_batch=128, kind="batch size changes"
    ),
    "sequence b8": Training(sequence, 0.99, 1000, constant(Adam, 1e-3), 8, samples=1024, kind="small batches"),
    "bottleneck b256": Training(bottleneck, 0.95, 500, constant(Adam, 1e-3), 256, samples=4096, kind="large batches"),
    "sequence 0.999": Training(sequence, 0.999, 3500, constant(Adam, 1e-3), 64, kind="momentum 0.999"),
    "bottleneck 0.98 3e-4": Training(
        bottleneck, 0.98, 800, constant(Adam, 3e-4), 64, wide(blobs, 0.3), kind="Adam 3e-4", rate=3e-4
    ),
}
