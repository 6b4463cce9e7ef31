"""The same batch, the same weights, several normalizations: losses without side effects.

Each pass runs the model inside a ``keras.StatelessScope``, where assignments are collected instead of made, so
no variable, seed generator or metric is written. The moving statistics come in as arguments, so that one trace
serves ``inference``, ``recalibrated``, ``forecast`` and ``replayed``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.layers import TrackedLayer
from tb_bnlens.capture.outcomes import ReadingScope, loss_of, packed
from tb_bnlens.capture.reasons import cause_of
from tb_bnlens.capture.segments import Segments
from tb_bnlens.capture.side_effects import (
    graph,
    refuse_inner_graph,
    refuse_traced_calls,
)
from tb_bnlens.capture.tracing import OPTIONS, Tracer

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class InferencePass:
    """Result of a pass in inference mode."""

    loss: float
    predictions: Any
    """What the model gives, as ``outcomes`` takes it; None where that is no structure of tensors."""


@dataclass(frozen=True)
class BatchPass:
    """Result of a pass in batch mode."""

    loss: float
    mean: Array
    """Batch means, averaged over a layer's calls, [C_total]; NaN for layers that were not called."""
    variance: Array
    calls: dict[int, list[tuple[NDArray[np.float32], NDArray[np.float32]]]]
    """Layer index -> mean and variance of each call, for layers called more than once."""
    predictions: Any = None


@dataclass(frozen=True)
class TrainingPass:
    """Result of a pass in training mode."""

    loss: float
    mean: Array
    """Moving means as the step would leave them, had it the momentum that was traced, [C_total]."""
    spread: Array
    """Moving variances (standard deviations, for ``renorm``), likewise."""
    batch_mean: Array
    """Batch means of the layers that update, with dropout on as in training, [C_total]; NaN for the others."""
    batch_variance: Array
    predictions: Any = None


class Probe:
    """Passes over one model; ``NotEvaluated`` where the model does not allow them.

    Args:
        model: a built Keras model.
        layers: its BatchNorm layers.
        segments: their channels.
        loss: ``loss(y_true, y_pred)`` for models that are not compiled with one.
        any_size: trace once for batches of all sizes, where the model can be traced so.
    """

    def __init__(
        self,
        model: Any,
        layers: Sequence[TrackedLayer],
        segments: Segments,
        loss: Callable[..., Any] | None = None,
        any_size: bool = False,
    ):
        self._model, self._layers, self._segments, self._loss = model, tuple(layers), segments, loss
        self._any_size = any_size
        self._tried: set[int] = set()
        self._index = {id(t.layer): i for i, t in enumerate(self._layers)}
        self.loss_reason = ""
        self.tracer = Tracer()
        self.order: list[int] = []
        """Layer index of each BatchNorm call of one forward pass, in the order of execution."""
        self.trains: dict[int, bool] = {}
        """Layer index -> whether it runs in training mode when the model does."""
        self.at_inference: dict[int, bool] = {}
        """Layer index -> whether it normalizes by the batch when the model runs in inference mode."""
        self._training_order: list[int] = []
        self.traced_gain = np.asarray([t.gain for t in self._layers])
        """``1 - momentum`` of each layer when the training pass was traced, [L]."""
        self._inference = tf.function(self._trace_inference, **OPTIONS)
        self._batch = tf.function(self._trace_batch, **OPTIONS)
        self._training = tf.function(self._trace_training, **OPTIONS)
        refuse_traced_calls(model)

    # --- the passes ----------------------------------------------------------------------------------

    def inference(self, batch: Any, mean: Array, variance: Array) -> float:
        """Loss in inference mode with these moving statistics, [C_total] each: what ``test_on_batch`` gives."""
        return self.inference_pass(batch, mean, variance).loss

    def inference_pass(self, batch: Any, mean: Array, variance: Array) -> InferencePass:
        """The same, with the predictions."""
        loss, predictions = self._run(self._inference, batch, *self._statistics(mean, variance))
        return InferencePass(float(loss), predictions)

    def batch(self, batch: Any, mean: Array, variance: Array, on_moving: NDArray[np.bool_] | None = None) -> BatchPass:
        """Loss with every layer on the statistics of this batch and all else in inference mode.

        Args:
            batch: the data, as the training step gets it.
            mean: moving means, [C_total], for the layers in ``on_moving``.
            variance: moving variances, likewise.
            on_moving: [L] or [C_total], layers or channels that use the moving statistics instead (attribution).
        """
        flags = np.zeros(len(self._layers), bool) if on_moving is None else on_moving
        if len(flags) == len(self._layers):
            flags = self._segments.spread(flags).astype(bool)
        loss, call_means, call_variances, predictions = self._run(
            self._batch, batch, *self._statistics(mean, variance), tf.constant(flags)
        )
        calls = self._by_layer(self.order, call_means.numpy(), call_variances.numpy())
        means, variances = self._averaged(calls)
        several = {i: c for i, c in calls.items() if len(c) > 1}
        return BatchPass(float(loss), means, variances, several, predictions)

    def training(self, batch: Any) -> TrainingPass:
        """Loss as the training step computes it, dropout on and frozen layers as frozen, with its update."""
        loss, mean, spread, call_means, call_variances, predictions = self._run(self._training, batch)
        calls = self._by_layer(self._training_order, call_means.numpy(), call_variances.numpy())
        after = mean.numpy().astype(np.float64), spread.numpy().astype(np.float64)
        return TrainingPass(float(loss), *after, *self._averaged(calls), predictions)

    def _run(self, function: Any, batch: Any, *statistics: Any) -> Any:
        if self._any_size and id(function) not in self._tried:
            self._tried.add(id(function))
            # A model that has to know the size is traced for each.
            with contextlib.suppress(Exception):
                self.tracer.trace(function, _of_any_size(batch), *statistics)
        return self.tracer.run(function, batch, *statistics)

    def _by_layer(
        self, order: Sequence[int], means: NDArray[np.float32], variances: NDArray[np.float32]
    ) -> dict[int, list[tuple[NDArray[np.float32], NDArray[np.float32]]]]:
        stops = np.cumsum([int(self._segments.sizes[i]) for i in order])[:-1]
        calls: dict[int, list[tuple[NDArray[np.float32], NDArray[np.float32]]]] = {}
        for index, m, v in zip(order, np.split(means, stops), np.split(variances, stops), strict=False):
            calls.setdefault(index, []).append((m, v))
        return calls

    def _averaged(self, calls: dict[int, list[tuple[NDArray[np.float32], NDArray[np.float32]]]]) -> tuple[Array, Array]:
        means = np.full(int(self._segments.sizes.sum()), np.nan)
        variances = means.copy()
        for index, each in calls.items():
            part = slice(self._segments.starts[index], self._segments.stops[index])
            means[part] = np.mean([m for m, _ in each], axis=0)
            variances[part] = np.mean([v for _, v in each], axis=0)
        return means, variances

    def trained(self) -> NDArray[np.bool_]:
        """Layers that normalize by the batch in training, [L]: neither frozen nor called in inference mode."""
        return np.asarray([self.trains.get(i, True) and bool(t.layer.trainable) for i, t in enumerate(self._layers)])

    def count_calls(self, batch: Any) -> None:
        """Find ``order`` without running a pass: windows cannot be recovered before it is known."""
        nothing = np.zeros(int(self._segments.sizes.sum()))
        self.tracer.trace(self._batch, batch, *self._statistics(nothing, nothing), tf.zeros(len(nothing), tf.bool))

    # --- traces --------------------------------------------------------------------------------------

    def _trace_inference(self, batch: Any, mean: Any, variance: Any) -> Any:
        outer = graph()

        def observe(index: int, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            refuse_inner_graph(outer, self._layers[index].name)
            by_batch = _mode(args, kwargs) and bool(self._layers[index].layer.trainable)
            self.at_inference[index] = self.at_inference.get(index, False) or by_batch
            return call(*args, **kwargs)

        with self._scope(mean, variance), self._patched(observe):
            return self._forward(batch, training=False)

    def _trace_batch(self, batch: Any, mean: Any, variance: Any, on_moving: Any) -> Any:
        outer = graph()
        means, variances, on_moving = self._split(mean), self._split(variance), self._split(on_moving)
        order: list[int] = []
        moments: list[tuple[Any, Any]] = []

        with self._scope(mean, variance) as scope:

            def normalize(index: int, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
                layer = self._layers[index].layer
                refuse_inner_graph(outer, self._layers[index].name)
                m, v = _batch_moments(layer, args, kwargs)
                order.append(index)
                moments.append((m, v))
                # Batch statistics stand in for the moving ones, in inference mode: that works for frozen layers
                # and leaves everything else in the layer as it is.
                for variable, given, own in (
                    (layer.moving_mean, means[index], m),
                    (layer.moving_variance, variances[index], v),
                ):
                    scope.add_update((variable, tf.where(on_moving[index], tf.cast(given, own.dtype), own)))
                return call(*args, **{**kwargs, "training": False})

            with self._patched(normalize):
                loss, predictions = self._forward(batch, training=False)
        self.order = order
        return loss, _concat([m for m, _ in moments]), _concat([v for _, v in moments]), predictions

    def _trace_training(self, batch: Any) -> Any:
        outer = graph()
        order: list[int] = []
        moments: list[tuple[Any, Any]] = []

        def observe(index: int, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            refuse_inner_graph(outer, self._layers[index].name)
            mode = _mode(args, kwargs)
            self.trains[index] = self.trains.get(index, False) or mode
            if mode and self._layers[index].layer.trainable:
                order.append(index)
                moments.append(_batch_moments(self._layers[index].layer, args, kwargs))
            return call(*args, **kwargs)

        self.traced_gain = np.asarray([t.gain for t in self._layers])
        with ReadingScope(collect_losses=True) as scope, self._patched(observe):
            loss, predictions = self._forward(batch, training=True)
            after = [scope.get_current_value(v) for t in self._layers for v in (t.layer.moving_mean, t.averaged)]
        self._training_order = order
        batch_moments = _concat([m for m, _ in moments]), _concat([v for _, v in moments])
        return loss, _concat(after[0::2]), _concat(after[1::2]), *batch_moments, predictions

    def _forward(self, batch: Any, training: bool) -> tuple[Any, Any]:
        """Loss and predictions."""
        model = self._model
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        y_pred = model(x, training=training) if model._call_has_training_arg else model(x)
        try:
            loss = loss_of(model, self._loss, x, y, y_pred, weight, training)
        except NotEvaluated:
            raise
        except Exception as error:
            # The statistics of the pass are worth having without it.
            self.loss_reason = f"no loss: {cause_of(error)}"
            loss = tf.constant(np.nan, tf.float32)
        return tf.cast(loss, tf.float32), packed(y_pred)

    # --- machinery -----------------------------------------------------------------------------------

    def _statistics(self, mean: Array, variance: Array) -> tuple[Any, Any]:
        return tf.constant(mean, tf.float32), tf.constant(variance, tf.float32)

    def _split(self, values: Any) -> list[Any]:
        return list(tf.split(values, self._segments.sizes)) if self._layers else []

    def _scope(self, mean: Any, variance: Any) -> ReadingScope:
        mapping = []
        for tracked, m, v in zip(self._layers, self._split(mean), self._split(variance), strict=True):
            mapping += [(tracked.layer.moving_mean, m), (tracked.layer.moving_variance, v)]
        return ReadingScope(mapping, collect_losses=True)

    @contextlib.contextmanager
    def _patched(self, replacement: Callable[..., Any]) -> Iterator[None]:
        """Route every BatchNorm call through ``replacement(index, call, args, kwargs)`` while tracing."""
        patched = []
        # Layers keep the losses of their last call in attributes; training must find its own there.
        kept = [(layer, layer._losses[:], set(layer._loss_ids)) for layer in self._model._flatten_layers()]
        try:
            for index, tracked in enumerate(self._layers):
                original = tracked.layer.call

                def call(*args: Any, _i: int = index, _call: Any = original, **kwargs: Any) -> Any:
                    return replacement(_i, _call, args, kwargs)

                object.__setattr__(tracked.layer, "call", call)
                patched.append(tracked.layer)
            yield
        finally:
            for layer in patched:
                object.__delattr__(layer, "call")
            for layer, losses, ids in kept:
                layer._losses[:] = losses
                layer._loss_ids.clear()
                layer._loss_ids.update(ids)


def _of_any_size(batch: Any) -> Any:
    """The batch as a specification that leaves its size open; what is no plain tensor stays as it is."""

    def spec(leaf: Any) -> Any:
        plain = isinstance(leaf, tf.Tensor) and leaf.shape.rank
        return tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype) if plain else leaf

    return keras.tree.map_structure(spec, batch)


def _mode(args: Any, kwargs: Any) -> bool:
    """Whether a layer is called in training mode."""
    return bool(kwargs.get("training", args[1] if len(args) > 1 else None))


def _batch_moments(layer: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    inputs = keras.ops.cast(args[0], keras.backend.result_type(args[0].dtype, "float32"))
    # Under a mask Keras squeezes the statistics of a single channel to scalars.
    mean, variance = (tf.reshape(part, [-1]) for part in layer._moments(inputs, kwargs.get("mask")))
    return mean, variance


def _concat(parts: list[Any]) -> Any:
    # One tensor out of a pass: fetching a hundred small ones costs more than computing them.
    return tf.concat([tf.cast(p, tf.float32) for p in parts], axis=0) if parts else tf.zeros([0])
