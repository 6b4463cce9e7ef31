"""What is made of a pass' predictions: its loss, the loss of each row, the compiled metrics. Nothing is written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.reasons import cause_of
from tb_bnlens.frameworks.keras3.backend import Engine, host, is_plain

ops = keras.ops


class ReadingScope(keras.StatelessScope):  # type: ignore[misc]
    """A stateless scope in which variables that are not mapped read as themselves.

    Weight regularizers ask the scope for the variable and fail on Keras' own answer for unmapped ones, None.
    """

    def get_current_value(self, variable: Any) -> Any:
        """The mapped value, or the variable's own."""
        return self.state_mapping.get(id(variable), variable._value)


def loss_of(
    model: Any, own: Callable[..., Any] | None, x: Any, y: Any, y_pred: Any, weight: Any, training: bool
) -> Any:
    """The loss of predictions as the model, or the function that stands in for its own, computes it.

    Raises:
        ValueError: the model is not compiled and no function was given.
    """
    if own is not None:
        return ops.mean(ops.cast(own(y, y_pred), "float32"))
    if not getattr(model, "compiled", False):
        raise ValueError("the model is not compiled and no loss was given")
    parts = {"x": x, "y": y, "y_pred": y_pred, "sample_weight": weight}
    # Keras 3.3 has only the public method, which is not told the mode.
    if hasattr(model, "_compute_loss"):
        return model._compute_loss(**parts, training=training)
    return model.compute_loss(**parts)


def packed(y_pred: Any) -> Any:
    """Predictions with their masks, as a traced function can hand them out; None where they are no tensors."""
    leaves = keras.tree.flatten(y_pred)
    if not leaves or not all(is_plain(leaf) for leaf in leaves):
        return None
    return y_pred, tuple(getattr(leaf, "_keras_mask", None) for leaf in leaves)


def _unpacked(predictions: Any) -> Any:
    y_pred, masks = predictions
    for leaf, mask in zip(keras.tree.flatten(y_pred), masks, strict=True):
        if mask is not None:
            leaf._keras_mask = mask
    return y_pred


@contextlib.contextmanager
def _of_the_user(what: str) -> Iterator[None]:
    """A loss or metric that fails on the predictions is one that cannot be had, as in a model with its own step."""
    try:
        yield
    except NotEvaluated:
        raise
    except Exception as error:
        raise NotEvaluated(f"{what}: {cause_of(error)}") from error


class Outcomes:
    """Loss of each row and metrics of one model's predictions.

    Args:
        model: a built Keras model.
        engine: runs its functions.
        loss: ``loss(y_true, y_pred)`` for models that are not compiled with one.
    """

    def __init__(self, model: Any, engine: Engine, loss: Callable[..., Any] | None = None):
        self._model, self._loss, self._engine = model, loss, engine

    def rows(self, batch: Any, predictions: Any, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Loss of these rows of a batch, each as a separate batch, [len(indices)].

        Raises:
            NotEvaluated: the predictions are no tensors, or writing is part of the loss.
        """
        if predictions is None:
            raise NotEvaluated("the predictions are no tensors")
        losses = self._engine.run(self._trace_rows, batch, predictions, ops.convert_to_tensor(indices))
        return host(losses).astype(np.float64)

    def metric_state(self) -> list[Any]:
        """The metrics' variables as after a reset.

        Raises:
            NotEvaluated: the model has no compiled metrics.
        """
        if not getattr(self._model, "compiled", False):
            raise NotEvaluated("the model is not compiled, so it has no metrics")
        compiled = getattr(self._model, "_compile_metrics", None)
        if compiled is not None and not compiled.built:
            raise NotEvaluated("the metrics are not built yet, as by fit or evaluate, and building them adds variables")
        if not self._names():
            raise NotEvaluated("the model is compiled without metrics")
        with ReadingScope() as scope:
            for metric in self._model.metrics:
                metric.reset_state()
            return [scope.get_current_value(v) for v in self._model.metrics_variables]

    def update(self, state: Sequence[Any], batch: Any, predictions: Any) -> list[Any]:
        """The metrics' variables after one more batch.

        Raises:
            NotEvaluated: the predictions are no tensors, or a metric keeps state outside Keras' variables.
        """
        if predictions is None:
            raise NotEvaluated("the predictions are no tensors")
        return list(self._engine.run(self._trace_update, list(state), batch, predictions))

    def metrics(self, state: Sequence[Any]) -> dict[str, float]:
        """Results by the names that Keras shows, without the running loss."""
        with self._scope(state):
            results = self._model.get_metrics_result()
        return {
            str(name): float(np.asarray(value))
            for name, value in results.items()
            if name in self._names() and np.size(np.asarray(value)) == 1
        }

    def _names(self) -> list[str]:
        # The trackers of the loss, and of each output's loss, are losses again.
        trackers = {id(getattr(self._model, "_loss_tracker", None))}
        trackers |= {id(m) for m in getattr(getattr(self._model, "_compile_loss", None), "metrics", ())}
        with ReadingScope():
            names: list[str] = []
            for metric in self._model.metrics:
                if id(metric) in trackers:
                    continue
                result = metric.result()
                names += list(result) if isinstance(result, dict) else [metric.name]
        return names

    def _scope(self, state: Sequence[Any]) -> ReadingScope:
        own = list(zip(self._model.metrics_variables, state, strict=True))
        return ReadingScope([*self._engine.variables(), *own])

    def _trace_update(self, state: list[Any], batch: Any, predictions: Any) -> Any:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        with self._scope(state) as scope:
            with _of_the_user("no metrics"):
                self._model.compute_metrics(x, y, _unpacked(predictions), sample_weight=weight)
            return [scope.get_current_value(v) for v in self._model.metrics_variables]

    def _trace_rows(self, batch: Any, predictions: Any, indices: Any) -> Any:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        if type(self._model).compute_loss is keras.Model.compute_loss or self._loss is not None:
            x = None  # inputs are large, and only an own loss looks at them

        def of_row(index: Any) -> Any:
            def row(leaf: Any) -> Any:
                return None if leaf is None else self._engine.row(leaf, index)

            parts = (keras.tree.map_structure(row, part) for part in (x, y, weight))
            y_pred = _unpacked(keras.tree.map_structure(row, predictions))
            x_row, y_row, weight_row = parts
            with _of_the_user("no loss of single rows"):
                loss = loss_of(self._model, self._loss, x_row, y_row, y_pred, weight_row, training=False)
            return ops.reshape(ops.cast(loss, "float32"), ())

        with ReadingScope(self._engine.variables(), collect_losses=True):
            return self._engine.map(of_row, indices)
