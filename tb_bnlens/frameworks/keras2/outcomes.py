"""Losses and metrics of a model of Keras 2, by copies of what it is compiled with."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from tb_bnlens.capture.errors import NoMetrics, NotEvaluated
from tb_bnlens.capture.randomness import draws_refused
from tb_bnlens.frameworks.keras2.library import LIBRARY
from tb_bnlens.frameworks.keras2.scope import Replaced
from tb_bnlens.frameworks.keras3.outcomes import HELD_ELSEWHERE, Outcomes, of_the_user, unpacked

State = Sequence[NDArray[Any]]


class ContainerOutcomes(Outcomes):
    """Loss and metrics as ``compiled_loss`` and ``compiled_metrics`` compute them."""

    _copied: _Metrics | None = None

    def _is_compiled(self) -> bool:
        return getattr(self._model, "compiled_loss", None) is not None

    def _compiled_loss(self, parts: dict[str, Any], training: bool) -> Any:
        replaced = Replaced()
        replaced.set(self._model, "compiled_loss", _without_metrics(self._model.compiled_loss))
        try:
            loss = self._model.compute_loss(**parts)
        finally:
            replaced.put_back()
        if loss is None:
            raise ValueError("the model is compiled without a loss")
        return loss

    def _fresh_metrics(self) -> State:
        # None before the first update, which makes the variables.
        if not self._is_compiled():
            raise NoMetrics("the model is not compiled, so it has no metrics")
        with self._undone():
            metrics = self._metrics()
            if metrics.none():
                raise NoMetrics("the model is compiled without metrics")
            return metrics.reset()

    def _updated(self, state: State, batch: Any, predictions: Any) -> State:
        metrics = self._metrics()
        if not metrics.container.built:
            with self._undone():
                state = metrics.build(predictions[0], self._library.unpacked(batch)[1])
        metrics.restore(state)
        with self._engine.writing_to(metrics.variables()):  # type: ignore[attr-defined]
            self._engine.run(metrics.update, batch, predictions)
        return metrics.values()

    def _results(self, state: State) -> dict[str, float]:
        metrics = self._metrics()
        metrics.restore(state)
        with self._undone():
            return metrics.results()

    def _metrics(self) -> _Metrics:
        compiled = self._model.compiled_metrics
        if self._copied is None or not self._copied.is_of(compiled):
            self._copied = _Metrics(compiled, self._trace_update)
        return self._copied

    def _trace_update(self, container: Any, batch: Any, predictions: Any) -> Any:
        _, y, weight = self._library.unpacked(batch)
        with of_the_user("the metrics"):
            container.update_state(y, unpacked(self._library, predictions), weight)
        for metric in container.metrics:
            if not metric.variables:
                raise NotEvaluated(HELD_ELSEWHERE.format(metric.name))
        return tf.zeros(())


class _Metrics:
    """A copy of compiled metrics with its own variables."""

    def __init__(self, compiled: Any, update: Callable[..., Any]):
        self._compiled, self._was_built = compiled, compiled.built
        with _names_kept():
            self.container = own = copy.copy(compiled)
            for name in ("_user_metrics", "_user_weighted_metrics", "_metrics", "_weighted_metrics"):
                setattr(own, name, tf.nest.map_structure(LIBRARY.fresh, getattr(own, name)))
            if own.built:
                own._create_ordered_metrics()
        # A function for each copy: its trace holds the variables.
        self.update = lambda batch, predictions: update(own, batch, predictions)

    def is_of(self, compiled: Any) -> bool:
        """Whether these are copies of what the model has now."""
        return self._compiled is compiled and self._was_built == compiled.built

    def none(self) -> bool:
        """Whether the model is compiled without metrics."""
        asked = [self.container._user_metrics, self.container._user_weighted_metrics]
        return all(part is None for part in tf.nest.flatten(asked))

    def build(self, y_pred: Any, y: Any) -> State:
        """Make the variables."""
        with of_the_user("the metrics"), draws_refused(), _names_kept():
            self.container.build(y_pred, y)
        return self.values()

    def variables(self) -> list[Any]:
        """Of all metrics."""
        return [variable for metric in self.container.metrics for variable in metric.variables]

    def values(self) -> State:
        """Of the variables."""
        return [variable.numpy() for variable in self.variables()]

    def reset(self) -> State:
        """The values as they are before the first batch."""
        self.container.reset_state()
        return self.values()

    def restore(self, state: State) -> None:
        """Give the variables these values."""
        for variable, value in zip(self.variables(), state, strict=True):
            variable.assign(value)

    def results(self) -> dict[str, float]:
        """By the names that Keras shows."""
        found: dict[str, Any] = {}
        for metric in self.container.metrics:
            result = metric.result()
            found.update(result if isinstance(result, dict) else {metric.name: result})
        return {str(name): float(value) for name, value in found.items() if np.size(value) == 1}


class _Untracked:
    """In place of the metric that shows the mean loss."""

    def update_state(self, *_args: Any, **_kwargs: Any) -> None:
        """Nothing."""


def _without_metrics(compiled: Any) -> Any:
    """The compiled loss, without the metrics that it updates."""
    own = copy.copy(compiled)
    own._total_loss_mean = _Untracked()

    def create_metrics() -> None:
        own._per_output_metrics = [None] * len(own._output_names)

    own._create_metrics = create_metrics
    if own.built:
        create_metrics()
    return own


@contextlib.contextmanager
def _names_kept() -> Iterator[None]:
    """Objects that are made in the block take none of the names that Keras numbers, such as ``auc_1``."""
    names = tf_keras.src.backend.PER_GRAPH_OBJECT_NAME_UIDS
    before = {graph: dict(counts) for graph, counts in names.items()}
    try:
        yield
    finally:
        for graph, counts in names.items():
            counts.clear()
            counts.update(before.get(graph, {}))
