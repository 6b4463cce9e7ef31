"""Healthy real training runs: nothing may be raised by them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from tests.diagnosis import real_runs as real
from tests.diagnosis.real_runs import Build, Trained, batch_norm, batched, blobs, compiled, dense, fit, trained


def images(n: int = 1024, size: int = 12, noise: float = 0.5) -> Any:
    """Four directions of stripes in noise, (x [n, size, size, 1], y [n])."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, n)
    angle, phase = (np.pi * y / 4)[:, None, None], rng.uniform(0, 2 * np.pi, (n, 1, 1))
    rows, columns = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    x = np.sin(columns * np.cos(angle) + rows * np.sin(angle) + phase) + rng.normal(0, noise, (n, size, size))
    return x[..., None].astype("float32"), y.astype("int32")


def residual(momentum: float) -> Any:
    """Convolutions whose outputs are summed with their inputs, as in a ResNet."""

    def conv(x: Any) -> Any:
        return batch_norm(momentum)(kl.Conv2D(16, 3, padding="same", use_bias=False)(x))

    inputs = keras.Input((12, 12, 1))
    x = kl.ReLU()(conv(inputs))
    for _ in range(3):
        x = kl.ReLU()(kl.Add()([x, conv(kl.ReLU()(conv(x)))]))
    return keras.Model(inputs, kl.Dense(4)(kl.GlobalAveragePooling2D()(x)))


def attention(run: str, momentum: float = 0.9, epochs: int = 10, **options: Any) -> Trained:
    """Tokens that attend to each other, BatchNorm where a transformer has LayerNorm."""
    inputs = keras.Input((8, 16))
    x = kl.Dense(16)(inputs)
    for _ in range(2):
        x = batch_norm(momentum)(kl.Add()([x, kl.MultiHeadAttention(2, 8)(x, x)]))
        x = batch_norm(momentum)(kl.Add()([x, kl.Dense(16)(kl.Dense(32, activation="gelu")(x))]))
    model = keras.Model(inputs, kl.Dense(4)(kl.GlobalAveragePooling1D()(x)))
    x, y = blobs(1024, spread=0.5)
    tokens = x[:, None] + np.random.default_rng(1).normal(size=(len(x), 8, 16)).astype("float32")
    return fit(run, compiled(model), batched((tokens, y)), epochs, **options)


def recurrent(run: str, momentum: float = 0.9, epochs: int = 12, **options: Any) -> Trained:
    inputs = keras.Input((8, 2))
    hidden = kl.ReLU()(batch_norm(momentum)(kl.Dense(16)(kl.GRU(16)(inputs))))
    x, y = blobs(1024)
    model = keras.Model(inputs, kl.Dense(4)(hidden))
    return fit(run, compiled(model, 3e-3), batched((x.reshape(-1, 8, 2), y)), epochs, **options)


class Gan(keras.Model):
    """Generator and critic, each with BatchNorm; the critic sees real and generated samples in calls of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = keras.Sequential([keras.Input((8,)), kl.Dense(32), batch_norm(0.9), kl.ReLU(), kl.Dense(16)])
        self.critic = keras.Sequential([keras.Input((16,)), kl.Dense(32), batch_norm(0.9), kl.ReLU(), kl.Dense(1)])
        self.rates = [keras.optimizers.Adam(1e-3) for _ in range(2)]

    def call(self, noise: Any, training: Any = None) -> Any:
        return self.generator(noise, training=training)

    def train_step(self, real_samples: Any) -> Any:
        noise = tf.random.normal((tf.shape(real_samples)[0], 8))
        losses = {}
        for name, part, sign in (("critic", self.critic, 1.0), ("generator", self.generator, -1.0)):
            with tf.GradientTape() as tape:
                fake = self.critic(self.generator(noise, training=True), training=True)
                truth = self.critic(real_samples, training=True)
                loss = sign * tf.reduce_mean(tf.nn.softplus(fake) + tf.nn.softplus(-truth))
            weights = part.trainable_variables
            optimizer = self.rates[name == "critic"]
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            losses[name] = loss
        return losses


def gan(run: str) -> Trained:
    model = Gan()
    model(np.zeros((2, 8)))
    model.compile()
    noise = np.random.default_rng(2).normal(size=(32, 8)).astype("float32")
    return fit(run, model, batched(blobs()[0]), probe_data=tf.data.Dataset.from_tensors(noise))


def stopped_short(run: str, steps: int, momentum: float) -> Trained:
    return fit(run, compiled(dense(momentum)), batched(blobs(32 * steps)), 1)


def fine_tuned(run: str) -> Trained:
    return fit(run, compiled(real.pretrained(), 1e-5), batched(blobs(seed=5)))


def mixed_sizes(run: str) -> Trained:
    x, y = blobs(1024)
    cuts = np.cumsum(np.tile([32, 16, 48], 10))
    parts = list(zip(np.split(x, cuts)[:-1], np.split(y, cuts)[:-1], strict=True))
    shapes = (tf.TensorSpec((None, 16), tf.float32), tf.TensorSpec((None,), tf.int32))
    data = tf.data.Dataset.from_generator(lambda: iter(parts), output_signature=shapes)
    return fit(run, compiled(dense(0.9)), data.apply(tf.data.experimental.assert_cardinality(30)), 10)


def schedule(kind: str) -> Any:
    if kind == "cosine":
        return keras.optimizers.schedules.CosineDecay(3e-3, 500)
    return keras.optimizers.schedules.PiecewiseConstantDecay([250], [1e-2, 1e-4])


HEALTHY: dict[str, Build] = {
    "momentum 0.9": lambda run: trained(run, blobs(), 0.9),
    "momentum 0.99": lambda run: trained(run, blobs(), 0.99, 12),
    "momentum 0.999, 2,560 steps": lambda run: trained(run, blobs(), 0.999, 40),
    "batch of 2": lambda run: trained(run, blobs(1024), 0.99, 6, 2),
    "batch of 3": lambda run: trained(run, blobs(1024), 0.99, 6, 3),
    "batch of 4": lambda run: trained(run, blobs(1024), 0.9, 6, 4),
    "batch of 8, 4 units": lambda run: trained(run, blobs(1024), 0.99, 10, 8, width=4),
    "batch of 512": lambda run: trained(run, blobs(), 0.9, 30, 512),
    "labels without meaning": lambda run: trained(run, (blobs()[0], blobs(seed=3)[1])),
    "some dropout": lambda run: trained(run, blobs(spread=0.7), 0.9, dropout=0.2),
    "frozen on its own data": lambda run: real.frozen_base(run),
    "shared by one domain": lambda run: real.shared_layer(run, 0, 1),
    "loop": lambda run: real.own_loop(run, True),
    "negative loss": lambda run: real.negative_loss(run, 0.9, 1),
    "short last batch at 0.99": lambda run: real.short_last_batch(run, 0.99, 60),
    "residual sums": lambda run: fit(run, compiled(residual(0.9)), batched(images()), 6),
    "attention": attention,
    "recurrent": recurrent,
    "GAN": gan,
    "5 steps": lambda run: stopped_short(run, 5, 0.6),
    "20 steps": lambda run: stopped_short(run, 20, 0.8),
    "one epoch": lambda run: trained(run, blobs(4096), 0.9, 1),
    "fine-tuning": fine_tuned,
    "cosine rate": lambda run: trained(run, blobs(), 0.99, 10, rate=schedule("cosine")),
    "rate that drops": lambda run: trained(run, blobs(), 0.99, 10, rate=schedule("drop")),
    "plain SGD": lambda run: trained(run, blobs(), 0.9, optimizer=keras.optimizers.SGD(0.1, momentum=0.9)),
    "batches of several sizes": mixed_sizes,
    "validation on its own kind": lambda run: real.shifted_validation(run),
}
