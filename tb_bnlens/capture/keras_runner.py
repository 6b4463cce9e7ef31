"""``passes.Runner`` for a Keras model on TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.outcomes import Outcomes
from tb_bnlens.capture.passes import Array, Mask, Moments, Outcome
from tb_bnlens.capture.probe import Probe


class KerasRunner:
    """Passes over one Keras model; see ``passes.Runner``.

    Args:
        model: a built Keras model.
        probe: its forward passes.
        loss: ``loss(y_true, y_pred)`` for models that are not compiled with one.
    """

    def __init__(self, model: Any, probe: Probe, loss: Callable[..., Any] | None = None):
        self._probe = probe
        outcomes = Outcomes(model, probe.tracer, loss)
        self.rows, self.metric_state = outcomes.rows, outcomes.metric_state
        self.update, self.metrics = outcomes.update, outcomes.metrics

    def inference(self, batch: Any, moving: Moments) -> Outcome:
        """Every layer on these moving statistics."""
        passed = self._probe.inference_pass(batch, moving.mean, moving.variance)
        return Outcome(passed.loss, passed.predictions)

    def batch(self, batch: Any, moving: Moments, on_moving: Mask) -> Outcome:
        """Every channel on the batch's statistics, but for the mask's; all else in inference mode."""
        passed = self._probe.batch(batch, moving.mean, moving.variance, on_moving)
        return Outcome(passed.loss, passed.predictions, Moments(passed.mean, passed.variance))

    def training(self, batch: Any) -> Outcome:
        """As the training step does, with its batch statistics."""
        passed = self._probe.training(batch)
        return Outcome(passed.loss, passed.predictions, Moments(passed.batch_mean, passed.batch_variance))

    def weights(self, batch: Any) -> Array | None:
        """Sample weights of a batch, [B]; the largest of a row where there are several."""
        _, _, weight = keras.utils.unpack_x_y_sample_weight(batch)
        if weight is None or len(keras.tree.flatten(weight)) != 1:
            return None
        values = np.asarray(keras.tree.flatten(weight)[0])
        return values.reshape(len(values), -1).max(axis=1) if values.ndim else None

    def inputs(self, batch: Any) -> Array | None:
        """Real-valued inputs of a batch, [B, F]; None where there are none."""
        x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        leaves = [leaf for leaf in keras.tree.flatten(x) if isinstance(leaf, tf.Tensor) and leaf.dtype.is_floating]
        columns = [tf.reshape(tf.cast(leaf, tf.float32), [leaf.shape[0], -1]).numpy() for leaf in leaves]
        return np.concatenate(columns, axis=1) if columns else None

    def compose(
        self,
        batches: Sequence[Any],
        rows: Sequence[NDArray[np.int64]],
        targets: Sequence[NDArray[np.int64]] | None = None,
    ) -> list[Any]:
        """New batches of these rows of all batches laid end to end, with the targets of other rows where given."""
        flat = [keras.tree.flatten(batch) for batch in batches]
        columns = list(zip(*flat, strict=True))
        if any(isinstance(leaf, tf.RaggedTensor | tf.SparseTensor) for column in columns for leaf in column):
            raise NotEvaluated("the batches hold ragged or sparse tensors, whose rows are not recombined")
        if any(len({tuple(leaf.shape[1:]) for leaf in column if leaf is not None}) > 1 for column in columns):
            raise NotEvaluated("rows of different batches have different shapes")
        whole = [None if column[0] is None else tf.concat(column, axis=0) for column in columns]

        def composed(chosen: NDArray[np.int64]) -> Any:
            leaves = [None if leaf is None else tf.gather(leaf, chosen) for leaf in whole]
            return keras.tree.pack_sequence_as(batches[0], leaves)

        if targets is None:
            return [composed(chosen) for chosen in rows]
        mixed = []
        for chosen, others in zip(rows, targets, strict=True):
            (x, _, weight), (_, y, _) = (keras.utils.unpack_x_y_sample_weight(composed(r)) for r in (chosen, others))
            if y is None:
                raise NotEvaluated("the batches hold no targets")
            mixed.append((x, y) if weight is None else (x, y, weight))
        return mixed
