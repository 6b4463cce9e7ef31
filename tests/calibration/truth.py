"""What the moving statistics should be, measured beside a training without the lens.

At a step, the batch statistics of many held batches at the weights of that step are averaged; the moving statistics
are compared with them. Nothing here imports ``tb_bnlens``: the formulas are written out again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Array = NDArray[np.float64]

LOOKS = 160
"""Steps of a training at which the truth is measured, at most."""


@dataclass
class Curve:
    """The truth over the steps of a training."""

    steps: list[int] = field(default_factory=list)
    error_p95: list[Array] = field(default_factory=list)
    """95th percentile over channels of the relative error, [L] at each step."""
    error_max: list[Array] = field(default_factory=list)
    losses: list[tuple[float, ...]] = field(default_factory=list)
    """Mean over the held batches of the loss at inference, with batch statistics and with the true mean statistics."""

    def arrays(self) -> dict[str, Array]:
        """Everything as arrays: steps [N], errors [N, L], losses [N, 3]."""
        return {name: np.asarray(value, np.float64) for name, value in vars(self).items()}


class Truth(keras.callbacks.Callback):  # type: ignore[misc]
    """Measure a ``Curve`` while ``fit`` trains; it writes to no variable.

    Args:
        x: held inputs, [B, n, ...]: B batches of the size that training uses.
        y: their labels, [B, n].
        total: steps of the whole training.
        every: steps between two measurements.
    """

    def __init__(self, x: Any, y: Any, total: int):
        super().__init__()
        self._x, self._y = tf.constant(x), tf.constant(y)
        self._every = max(1, total // LOOKS)
        self.curve = Curve()
        self._step = 0

    def set_model(self, model: Any) -> None:
        """Trace the measurement for this model."""
        super().set_model(model)
        self._norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        seen = keras.Model(model.inputs, [*(layer.input for layer in self._norms), model.output])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        x, y = self._x, self._y

        def forward(batch: Any, training: bool, instead: Any = None) -> Any:
            values = [(instead or {}).get(id(v), v.value) for v in seen.non_trainable_variables]
            weights = [v.value for v in seen.trainable_variables]
            return seen.stateless_call(weights, values, batch, training=training)[0]

        def moments(value: Any) -> Any:
            return tf.nn.moments(value, list(range(len(value.shape) - 1)))

        def of_batch(pair: Any) -> Any:
            batch, labels = pair
            *inputs, out = forward(batch, True)
            means, variances = zip(*(moments(value) for value in inputs), strict=True)
            return tf.concat(means, 0), tf.concat(variances, 0), loss(labels, out)

        def measure() -> Any:
            kinds = (tf.float32, tf.float32, tf.float32)
            mean, variance, batch = tf.map_fn(of_batch, (x, y), fn_output_signature=kinds)
            mean, variance = tf.reduce_mean(mean, 0), tf.reduce_mean(variance, 0)
            flat, labels = tf.reshape(x, (-1, *x.shape[2:])), tf.reshape(y, [-1])
            sizes = [layer.moving_mean.shape[0] for layer in self._norms]
            true: dict[int, Any] = {}
            for layer, mu, v in zip(self._norms, tf.split(mean, sizes), tf.split(variance, sizes), strict=True):
                true |= {id(layer.moving_mean): mu, id(layer.moving_variance): v}
            inference, recalibrated = (loss(labels, forward(flat, False, use)[-1]) for use in (None, true))
            return mean, variance, inference, tf.reduce_mean(batch), recalibrated

        self._measure = tf.function(measure, autograph=False)

    def on_train_begin(self, logs: Any = None) -> None:
        """The start counts."""
        if not self._step:
            self._look()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Measure at every step of the grid."""
        self._step += 1
        if self._step % self._every == 0:
            self._look()

    def _look(self) -> None:
        mean, variance, *losses = (value.numpy() for value in self._measure())
        p95, worst, at = [], [], 0
        for layer in self._norms:
            m, s = np.asarray(layer.moving_mean, np.float64), np.asarray(layer.moving_variance, np.float64)
            mu, v = (z[at : at + len(m)].astype(np.float64) for z in (mean, variance))
            at += len(m)
            eps = layer.epsilon
            e = np.maximum(np.abs(mu - m) / np.sqrt(v + eps), np.abs(s - v) / np.maximum(v, eps))
            e = e[v > 0.01 * eps]
            p95.append(np.quantile(e, 0.95) if len(e) else np.nan)
            worst.append(e.max() if len(e) else np.nan)
        self.curve.steps.append(self._step)
        self.curve.error_p95.append(np.asarray(p95))
        self.curve.error_max.append(np.asarray(worst))
        self.curve.losses.append(tuple(float(value) for value in losses))
