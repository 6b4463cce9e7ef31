"""What is Keras 3's own, on any backend: passes run inside a ``keras.StatelessScope``, which collects assignments."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tb_bnlens.capture.errors import NoMetrics, NotEvaluated
from tb_bnlens.frameworks.keras3.backend import Engine, Statistics
from tb_bnlens.frameworks.keras3.compiled import built_apart
from tb_bnlens.frameworks.keras3.layers import KerasLayer
from tb_bnlens.frameworks.keras3.library import Library
from tb_bnlens.frameworks.keras3.outcomes import HELD_ELSEWHERE, Outcomes, of_the_user, unpacked
from tb_bnlens.frameworks.keras3.own_code import trains_as_it_infers
from tb_bnlens.metadata import KERAS

LIBRARY = Library(keras, keras.tree, keras.ops, keras.utils.PyDataset, keras.layers.BatchNormalization)


class ReadingScope(keras.StatelessScope):  # type: ignore[misc]
    """A stateless scope in which variables that are not mapped read as themselves.

    Weight regularizers ask the scope for the variable and fail on Keras' own answer for unmapped ones, None.
    """

    def get_current_value(self, variable: Any) -> Any:
        """The mapped value, or the variable's own."""
        return self.state_mapping.get(id(variable), variable._value)

    def put(self, layer: KerasLayer, mean: Any, variance: Any) -> None:
        """Have a layer read these from now on."""
        self.add_update((layer.layer.moving_mean, mean))
        self.add_update((layer.layer.moving_variance, variance))

    def averages(self, layer: KerasLayer) -> tuple[Any, Any]:
        """The moving averages as the layer has assigned them."""
        return self.get_current_value(layer.layer.moving_mean), self.get_current_value(layer.averaged)


class StatelessOutcomes(Outcomes):
    """Loss and metrics by ``ReadingScope``."""

    def _is_compiled(self) -> bool:
        return bool(getattr(self._model, "compiled", False))

    def _compiled_loss(self, parts: dict[str, Any], training: bool) -> Any:
        # Keras 3.3 has only the public method, which is not told the mode.
        if hasattr(self._model, "_compute_loss"):
            return self._model._compute_loss(**parts, training=training)
        return self._model.compute_loss(**parts)

    def _fresh_metrics(self) -> list[Any]:
        if not self._is_compiled():
            raise NoMetrics("the model is not compiled, so it has no metrics")
        compiled = getattr(self._model, "_compile_metrics", None)
        if compiled is not None and not compiled.built:
            raise NotEvaluated("the metrics are not built yet, as by fit or evaluate, and building them adds variables")
        if not self._names():
            raise NoMetrics("the model is compiled without metrics")
        with self._undone(), ReadingScope() as scope:
            for metric in self._model.metrics:
                metric.reset_state()
            return [scope.get_current_value(v) for v in self._model.metrics_variables]

    def _updated(self, state: Sequence[Any], batch: Any, predictions: Any) -> list[Any]:
        return list(self._engine.run(self._trace_update, list(state), batch, predictions))

    def _results(self, state: Sequence[Any]) -> dict[str, float]:
        with self._undone(), self._scope(state):
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
        with self._undone(), ReadingScope():
            names: list[str] = []
            for metric in self._model.metrics:
                if id(metric) in trackers:
                    continue
                result = metric.result()
                names += list(result) if isinstance(result, dict) else [metric.name]
        return names

    def _require_updates(self, scope: ReadingScope, state: Sequence[Any]) -> None:
        """Each compiled metric has written to a variable."""
        kept = {id(v): value for v, value in zip(self._model.metrics_variables, state, strict=True)}
        for metric in getattr(getattr(self._model, "_compile_metrics", None), "metrics", ()):
            if all(scope.get_current_value(v) is kept.get(id(v)) for v in metric.variables):
                raise NotEvaluated(HELD_ELSEWHERE.format(metric.name))

    def _scope(self, state: Sequence[Any]) -> ReadingScope:
        own = list(zip(self._model.metrics_variables, state, strict=True))
        return ReadingScope([*self._engine.variables(), *own])

    def _trace_update(self, state: list[Any], batch: Any, predictions: Any) -> Any:
        x, y, weight = self._library.unpacked(batch)
        with self._scope(state) as scope:
            with of_the_user("the metrics"):
                self._model.compute_metrics(x, y, unpacked(self._library, predictions), sample_weight=weight)
            self._require_updates(scope, state)
            return [scope.get_current_value(v) for v in self._model.metrics_variables]


class Keras3:
    """What the backends of Keras 3 have in common; see ``keras3.backend.Backend``."""

    framework = KERAS
    library = LIBRARY

    @contextlib.contextmanager
    def scope(self, model: Any, variables: Sequence[tuple[Any, Any]], statistics: Statistics) -> Iterator[ReadingScope]:
        """A stateless scope."""
        mapping = list(variables)
        for tracked, mean, variance in statistics:
            mapping += [(tracked.layer.moving_mean, mean), (tracked.layer.moving_variance, variance)]
        # Layers keep the losses of their last call in attributes; training must find its own there.
        kept = [(layer, layer._losses[:], set(layer._loss_ids)) for layer in model._flatten_layers()]
        try:
            with ReadingScope(mapping, collect_losses=True) as scope:
                yield scope
        finally:
            for layer, losses, ids in kept:
                layer._losses[:] = losses
                layer._loss_ids.clear()
                layer._loss_ids.update(ids)

    def moments(self, layer: Any, args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
        """Keras 3 averages the biased variance that it normalizes with."""
        inputs = keras.ops.cast(args[0], keras.backend.result_type(args[0].dtype, "float32"))
        mean, variance = layer._moments(inputs, kwargs.get("mask"))
        if len(mean.shape) != 1:
            # Under a mask Keras squeezes the statistics of a single channel to scalars.
            mean, variance = keras.ops.reshape(mean, (-1,)), keras.ops.reshape(variance, (-1,))
        return mean, variance, variance

    def outcomes(self, model: Any, engine: Engine, loss: Callable[..., Any] | None) -> StatelessOutcomes:
        """Loss and metrics of this model."""
        return StatelessOutcomes(self, model, engine, loss)  # type: ignore[arg-type]

    def predictions(self, model: Any, x: Any, training: bool) -> Any:
        """Call the model in this mode, if it has modes."""
        return model(x, training=training) if model._call_has_training_arg else model(x)

    def built_apart(self, model: Any, batch: Any) -> contextlib.AbstractContextManager[None]:
        """Copies of the loss and metrics, where they are not built."""
        return built_apart(self.library, model, batch)

    def trains_as_it_infers(self, model: Any, loss: Callable[..., Any] | None) -> bool:
        """Whether only BatchNorm minds the mode."""
        return trains_as_it_infers(self.library, model, loss)

    def traces_steps(self, model: Any) -> bool:
        """Keras on torch runs the step as plain Python unless told otherwise."""
        return keras.config.backend() != "torch" or bool(model.jit_compile)
