"""What is made of a pass' predictions: its loss, the loss of each row, and the user's metrics."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.accuracy import Right
from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.reasons import cause_of, why_no_loss
from tb_bnlens.frameworks.flax.batches import Batch, samples
from tb_bnlens.frameworks.flax.objects import OBJECTS

NO_METRICS = "no metrics were given: pass metrics={'accuracy': function_of(predictions, target)}"
NO_LOSS = "The model has no loss: pass loss=..., called as loss(predictions, target)."


class Outcomes:
    """Loss and metrics of one model's predictions.

    Args:
        loss: ``loss(predictions, target)``, which gives one number or one for each row.
        metrics: name -> ``metric(predictions, target)``, likewise. None is the accuracy, where the target is a class.
    """

    def __init__(self, loss: Callable[..., Any] | None, metrics: Mapping[str, Any] | None = None):
        self._loss, self._metrics, self._given = loss, dict(metrics or {}), metrics is not None
        self._rows = jax.jit(self._traced_rows)
        self._values = {name: jax.jit(functools.partial(_mean, metric)) for name, metric in self._metrics.items()}

    def loss(self, predictions: Any, target: Any) -> Any:
        """The loss of a batch, a scalar.

        Raises:
            NotEvaluated: there is none, or it cannot be taken of these predictions.
        """
        if self._loss is None:
            raise NotEvaluated(NO_LOSS)
        try:
            return _mean(self._loss, predictions, target)
        except Exception as error:
            raise NotEvaluated(why_no_loss(error, target is not None, "loss(predictions, target)")) from error

    def rows(self, batch: Batch, predictions: Any, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Loss of these rows of a batch, each as a separate batch, [len(indices)].

        Raises:
            NotEvaluated: there is no loss, or predictions or targets have no row for each sample.
        """
        size = samples(batch)
        for leaf in jax.tree.leaves((predictions, batch.y)):
            if not np.ndim(leaf) or leaf.shape[0] != size:
                raise NotEvaluated("predictions or targets have no row for each sample")
        with OBJECTS.put_back(self._loss):
            return np.asarray(self._rows((predictions, batch.y), np.asarray(indices)), np.float64)

    def _traced_rows(self, whole: Any, indices: Any) -> Any:
        def row(index: Any) -> Any:
            one = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(jnp.asarray(leaf), index), whole)
            return self.loss(*one)

        return jax.lax.map(row, indices)

    def weights(self, batch: Any) -> None:
        """The loss takes no weight for each sample."""

    # --- metrics -------------------------------------------------------------------------------------

    def metric_state(self) -> dict[str, tuple[float, int]] | Right:
        """Metrics before the first batch: sum over rows, and rows.

        Raises:
            NotEvaluated: there are none.
        """
        if not self._given:
            return Right(NO_METRICS)
        if not self._metrics:
            raise NotEvaluated(NO_METRICS)
        return dict.fromkeys(self._metrics, (0.0, 0))

    def update(self, state: dict[str, tuple[float, int]] | Right, batch: Batch, predictions: Any) -> Any:
        """Metrics after one more batch.

        Raises:
            NotEvaluated: one cannot be taken of these predictions.
        """
        if isinstance(state, Right):
            if not (hasattr(predictions, "ndim") and hasattr(batch.y, "ndim")):
                raise NotEvaluated(state.why)
            return state.more(np.asarray(predictions), np.asarray(batch.y))
        rows, after = samples(batch) or 1, {}
        for name, (total, count) in state.items():
            try:
                with OBJECTS.put_back(self._metrics[name]):
                    after[name] = total + float(self._values[name](predictions, batch.y)) * rows, count + rows
            except Exception as error:
                raise NotEvaluated(f"the metric {name!r} fails on the recorded batches ({cause_of(error)})") from error
        return after

    def metrics(self, state: Mapping[str, tuple[float, int]] | Right) -> dict[str, float]:
        """Their values, each the mean over rows."""
        if isinstance(state, Right):
            return state.values()
        return {name: total / max(count, 1) for name, (total, count) in state.items()}


def _mean(function: Callable[..., Any], predictions: Any, target: Any) -> Any:
    return jnp.mean(jnp.asarray(function(predictions, target), jnp.float32))
