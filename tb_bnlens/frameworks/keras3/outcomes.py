"""What is made of a pass' predictions: its loss, the loss of each row, the compiled metrics. Nothing is written."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.accuracy import Right
from tb_bnlens.capture.errors import NoLoss, NoMetrics, NotEvaluated
from tb_bnlens.capture.reasons import cause_of
from tb_bnlens.frameworks.keras3.backend import Backend, Engine
from tb_bnlens.frameworks.keras3.library import Library
from tb_bnlens.frameworks.keras3.own_code import has_keras_metrics

HELD_ELSEWHERE = (
    "{!r} holds its values outside of Keras' variables, where those of an extra pass cannot be told from training's"
)
"""Of a metric."""
NO_LOSS = "The model has no loss: compile it with one, or pass loss=... to Recorder or check."


def packed(library: Library, y_pred: Any) -> Any:
    """Predictions with their masks, as a traced function can hand them out; None where they are no tensors."""
    leaves = library.tree.flatten(y_pred)
    if not leaves or not all(library.is_plain(leaf) for leaf in leaves):
        return None
    return y_pred, tuple(getattr(leaf, "_keras_mask", None) for leaf in leaves)


def unpacked(library: Library, predictions: Any) -> Any:
    """The predictions again, their masks attached."""
    y_pred, masks = predictions
    for leaf, mask in zip(library.tree.flatten(y_pred), masks, strict=True):
        if mask is not None:
            leaf._keras_mask = mask
    return y_pred


@contextlib.contextmanager
def of_the_user(what: str) -> Iterator[None]:
    """A loss or metric that fails on the predictions is one that cannot be had, as in a model with its own step."""
    try:
        yield
    except NotEvaluated:
        raise
    except Exception as error:
        raise NotEvaluated(f"{what} cannot be computed on the recorded batches ({cause_of(error)})") from error


class Outcomes(ABC):
    """Losses and metrics of one model's predictions.

    Args:
        backend: what the model runs on.
        model: a built Keras model.
        engine: runs its functions.
        loss: ``loss(y_true, y_pred)`` for models that are not compiled with one.
    """

    def __init__(self, backend: Backend, model: Any, engine: Engine, loss: Callable[..., Any] | None = None):
        self._backend, self._library = backend, backend.library
        self._model, self._loss, self._engine = model, loss, engine

    def loss(self, x: Any, y: Any, y_pred: Any, weight: Any, training: bool) -> Any:
        """In a function that runs: the loss as the model, or the function that replaces its own, computes it.

        Raises:
            NoLoss: the model is not compiled with a loss and no function was given.
        """
        if self._loss is not None:
            ops = self._library.ops
            return ops.mean(ops.cast(self._loss(y, y_pred), "float32"))
        if not self._is_compiled():
            raise NoLoss(NO_LOSS)
        return self._compiled_loss({"x": x, "y": y, "y_pred": y_pred, "sample_weight": weight}, training)

    @abstractmethod
    def _is_compiled(self) -> bool:
        """Whether the model is compiled with a loss."""

    @abstractmethod
    def _compiled_loss(self, parts: dict[str, Any], training: bool) -> Any:
        """Its loss."""

    def metric_state(self) -> Any:
        """The compiled metrics as after a reset; the accuracy where there are none.

        Raises:
            NotEvaluated: they cannot be had.
        """
        try:
            return self._fresh_metrics()
        except NoMetrics as reason:
            return Right(str(reason))

    def update(self, state: Any, batch: Any, predictions: Any) -> Any:
        """The same after one more batch.

        Raises:
            NotEvaluated: the predictions are no tensors, a metric keeps state elsewhere, or there is no accuracy.
        """
        if predictions is None:
            raise NotEvaluated("the predictions are no tensors")
        if not isinstance(state, Right):
            return self._updated(state, batch, predictions)
        library, form = self._library, self._backend.batches
        scores, targets = library.tree.flatten(predictions[0]), form.targets(batch)
        if len(scores) != 1 or len(targets) != 1 or "float" not in str(scores[0].dtype):
            raise NotEvaluated(state.why)
        _, _, weight = library.unpacked(batch)
        counted = [part for part in (*library.tree.flatten(weight), *predictions[1]) if part is not None]
        return state.more(library.host_known(scores[0]), targets[0], [library.host_known(part) for part in counted])

    def metrics(self, state: Any) -> dict[str, float]:
        """Results by the names that Keras shows, without the running loss."""
        return state.values() if isinstance(state, Right) else self._results(state)

    @abstractmethod
    def _fresh_metrics(self) -> Any:
        """The compiled metrics as after a reset.

        Raises:
            NoMetrics: the model has none.
            NotEvaluated: they cannot be had.
        """

    @abstractmethod
    def _updated(self, state: Any, batch: Any, predictions: Any) -> Any:
        """The compiled metrics after one more batch.

        Raises:
            NotEvaluated: a metric keeps state elsewhere.
        """

    @abstractmethod
    def _results(self, state: Any) -> dict[str, float]:
        """Their values."""

    def _undone(self) -> contextlib.AbstractContextManager[Any]:
        """Undo what metrics of the user's do where they are called as they are: many hold their values in Python."""
        if has_keras_metrics(self._library, self._model):
            return contextlib.nullcontext()
        return self._backend.undone(self._model, self._loss)

    def rows(self, batch: Any, predictions: Any, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Loss of these rows of a batch, each as a separate batch, [len(indices)].

        Raises:
            NotEvaluated: the predictions are no tensors, or writing is part of the loss.
        """
        if predictions is None:
            raise NotEvaluated("the predictions are no tensors")
        losses = self._engine.run(self._trace_rows, batch, predictions, self._library.ops.convert_to_tensor(indices))
        return self._library.host(losses).astype(np.float64)

    def _trace_rows(self, batch: Any, predictions: Any, indices: Any) -> Any:
        tree, ops = self._library.tree, self._library.ops
        x, y, weight = self._library.unpacked(batch)
        if type(self._model).compute_loss is self._library.keras.Model.compute_loss or self._loss is not None:
            x = None  # inputs are large, and only an own loss looks at them

        def of_row(index: Any) -> Any:
            def row(leaf: Any) -> Any:
                return None if leaf is None else self._engine.row(leaf, index)

            x_row, y_row, weight_row = (tree.map_structure(row, part) for part in (x, y, weight))
            y_pred = unpacked(self._library, tree.map_structure(row, predictions))
            with of_the_user("the loss of single rows"):
                loss = self.loss(x_row, y_row, y_pred, weight_row, training=False)
            return ops.reshape(ops.cast(loss, "float32"), ())

        with self._backend.scope(self._model, self._engine.variables(), ()):
            return self._engine.map(of_row, indices)
