"""The same batch, the same weights, several normalizations: losses without side effects.

Each pass runs the model inside a scope where assignments are collected instead of made, so no variable, seed generator
or metric is written. The moving statistics come in as arguments, so that one trace
serves ``inference``, ``recalibrated``, ``forecast`` and ``replayed``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tb_bnlens.capture.errors import NoLoss, NotEvaluated
from tb_bnlens.capture.passes import Outcome
from tb_bnlens.capture.reasons import cause_of, in_pass, why_no_loss
from tb_bnlens.frameworks.keras3.backend import Backend, Scope
from tb_bnlens.frameworks.keras3.layers import KerasLayer
from tb_bnlens.frameworks.keras3.outcomes import NO_LOSS, packed
from tb_bnlens.moments.layers import gains
from tb_bnlens.moments.moments import Mask, Moments
from tb_bnlens.moments.recovery import Snapshot
from tb_bnlens.moments.segments import Segments
from tb_bnlens.moments.statistics import of_pass


class KerasRunner:
    """Passes over one Keras model; see ``capture.passes.Runner``.

    Args:
        backend: what Keras runs on.
        model: a built Keras model.
        layers: its BatchNorm layers.
        segments: their channels.
        loss: ``loss(y_true, y_pred)`` for models that are not compiled with one.
    """

    def __init__(
        self,
        backend: Backend,
        model: Any,
        layers: Sequence[KerasLayer],
        segments: Segments,
        loss: Callable[..., Any] | None = None,
    ):
        self._model, self._layers, self._segments, self._loss = model, tuple(layers), segments, loss
        self._backend, self._library, self._ops = backend, backend.library, backend.library.ops
        self.loss_reason = ""
        self._engine = engine = backend.engine(model, loss)
        self.tracing, self.accelerated, self.out_of_memory = engine.cost, engine.accelerated, engine.out_of_memory
        self.order: list[int] = []
        self.trains: dict[int, bool] = {}
        self.at_inference: dict[int, bool] = {}
        self.always_by_batch = False
        self.unreached: Sequence[str] = ()
        self.carries_state = any(
            isinstance(part, self._library.keras.layers.RNN) and part.stateful for part in model._flatten_layers()
        )
        self._training_order: list[int] = []
        # Subclasses may do something else at inference, and renorm something else in training.
        self._plain = bool(self._layers) and all(
            type(t.layer) is self._library.keras.layers.BatchNormalization and not t.renorm for t in self._layers
        )
        self._trains_by_batch: bool | None = None
        self._rent = 0.0
        self.gain = gains(self._layers)
        self._outcomes = outcomes = backend.outcomes(model, engine, loss)
        self.rows, self.metric_state = outcomes.rows, outcomes.metric_state
        self.update, self.metrics = outcomes.update, outcomes.metrics
        form = backend.batches
        self.weights, self.inputs = form.weights, form.inputs
        self.compose = _rows_keep_their_places if self.carries_state else form.compose

    # --- the passes ----------------------------------------------------------------------------------

    @in_pass("an inference pass")
    def inference(self, batch: Any, moving: Moments) -> Outcome:
        """Every layer on these moving statistics: what ``test_on_batch`` gives."""
        if self._is_shared(batch):
            return self._shared_inference(batch, moving)
        loss, predictions = self._engine.run(self._trace_inference, batch, *self._statistics(moving))
        return Outcome(float(loss), predictions)

    def _shared_inference(self, batch: Any, moving: Moments) -> Outcome:
        # A separate trace would take a third less time a pass. A short run does not earn back the tracing.
        cost, started = self.tracing.cpu_seconds, time.process_time()
        loss, _, _, predictions = self._by_batch(batch, moving, np.ones(len(moving.mean), bool))
        self._rent += (time.process_time() - started - (self.tracing.cpu_seconds - cost)) / 3
        return Outcome(float(loss), predictions)

    def _is_shared(self, batch: Any) -> bool:
        """Whether inference passes are run by the trace of ``batch``, all channels on the moving statistics.

        They are at first, where anything is traced and the layers are Keras' own and called for inference: then it is
        the same computation.
        """
        if not self._plain:
            return False
        if not self.order:
            self.count_calls(batch)
        return self._rent < self.tracing.cpu_seconds and not any(self.at_inference.values())

    @in_pass("a pass with batch statistics")
    def batch(self, batch: Any, moving: Moments, on_moving: Mask | None = None) -> Outcome:
        """Every channel on the batch's statistics, but for the mask's [C_total]; all else in inference mode."""
        flags = np.zeros(len(moving.mean), bool) if on_moving is None else on_moving
        loss, means, variances, predictions = self._by_batch(batch, moving, flags)
        host = self._library.host
        return Outcome(float(loss), predictions, *of_pass(self.order, host(means), host(variances), self._segments))

    def _by_batch(self, batch: Any, moving: Moments, on_moving: Mask) -> Any:
        flags = self._ops.convert_to_tensor(on_moving)
        return self._engine.run(self._trace_batch, batch, *self._statistics(moving), flags)

    @in_pass("a training pass")
    def training(self, batch: Any) -> Outcome:
        """As the training step does, dropout on and frozen layers as frozen, with its update."""
        if self._trains_by_batch is None:
            self._trains_by_batch = self._has_one_mode(batch)
        if self._trains_by_batch:
            return self.batch(batch, Moments(*np.ones((2, int(self._segments.sizes.sum())))))
        loss, mean, spread, means, variances, predictions = self._engine.run(self._trace_training, batch)
        host = self._library.host
        seen, _ = of_pass(self._training_order, host(means), host(variances), self._segments)
        after = Snapshot(host(mean).astype(np.float64), host(spread).astype(np.float64))
        return Outcome(float(loss), predictions, seen, after=after)

    @property
    def trains_by_batch(self) -> bool:
        """Whether a training pass is a pass in batch mode, for which no trace is needed; known after the first one."""
        return bool(self._trains_by_batch)

    def _has_one_mode(self, batch: Any) -> bool:
        if not (self._plain and self.trained().all() and self._backend.trains_as_it_infers(self._model, self._loss)):
            return False
        if not self.order:
            self.count_calls(batch)
        if len(set(self.order)) != len(self.order):
            return False
        self.gain = gains(self._layers)
        self.trains = dict.fromkeys(self.order, True)
        return True

    def trained(self) -> Mask:
        """Layers that normalize by the batch in training, [L]: neither frozen nor called in inference mode."""
        return np.asarray([self.trains.get(i, True) and t.trainable for i, t in enumerate(self._layers)], bool)

    def count_calls(self, batch: Any) -> None:
        """Find ``order`` without running a pass: windows cannot be recovered before it is known."""
        nothing = np.zeros(int(self._segments.sizes.sum()))
        statistics = self._statistics(Moments(nothing, nothing))
        self._engine.trace(self._trace_batch, batch, *statistics, self._ops.convert_to_tensor(nothing > 0))

    # --- traces --------------------------------------------------------------------------------------

    def _trace_inference(self, batch: Any, mean: Any, variance: Any) -> Any:
        outer = self._engine.where()

        def observe(index: int, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            self._refuse_inner(outer, index)
            by_batch = _mode(args, kwargs) and self._layers[index].trainable
            self.at_inference[index] = self.at_inference.get(index, False) or by_batch
            return call(*args, **kwargs)

        with self._scope(mean, variance), self._patched(observe):
            return self._forward(batch, training=False)

    def _trace_batch(self, batch: Any, mean: Any, variance: Any, on_moving: Any) -> Any:
        outer, ops = self._engine.where(), self._ops
        means, variances, on_moving = self._split(mean), self._split(variance), self._split(on_moving)
        order: list[int] = []
        moments: list[tuple[Any, Any]] = []

        with self._scope(mean, variance) as scope:

            def normalize(index: int, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
                layer = self._layers[index].layer
                self._refuse_inner(outer, index)
                by_batch = _mode(args, kwargs) and self._layers[index].trainable
                self.at_inference[index] = self.at_inference.get(index, False) or by_batch
                m, v, averaged = self._backend.moments(layer, args, kwargs)
                order.append(index)
                moments.append((m, averaged))
                # Batch statistics stand in for the moving ones, in inference mode: that works for frozen layers
                # and changes nothing else in the layer.
                mixed = (
                    ops.where(on_moving[index], ops.cast(given, own.dtype), own)
                    for given, own in ((means[index], m), (variances[index], v))
                )
                scope.put(self._layers[index], *mixed)
                return call(*args, **{**kwargs, "training": False})

            with self._patched(normalize):
                loss, predictions = self._forward(batch, training=False)
        self.order = order
        return loss, self._joined([m for m, _ in moments]), self._joined([v for _, v in moments]), predictions

    def _trace_training(self, batch: Any) -> Any:
        outer = self._engine.where()
        order: list[int] = []
        moments: list[tuple[Any, Any]] = []

        def observe(index: int, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            self._refuse_inner(outer, index)
            mode = _mode(args, kwargs)
            self.trains[index] = self.trains.get(index, False) or mode
            if mode and self._layers[index].trainable:
                order.append(index)
                mean, _, averaged = self._backend.moments(self._layers[index].layer, args, kwargs)
                moments.append((mean, averaged))
            return call(*args, **kwargs)

        self.gain = gains(self._layers)
        with self._backend.scope(self._model, self._engine.variables(), ()) as scope, self._patched(observe):
            loss, predictions = self._forward(batch, training=True)
            after = [scope.averages(tracked) for tracked in self._layers]
        self._training_order = order
        # A model without BatchNorm layers has no pairs, but four parts.
        parts = [[pair[i] for pair in pairs] for pairs in (after, moments) for i in (0, 1)]
        return loss, *map(self._joined, parts), predictions

    def _forward(self, batch: Any, training: bool) -> tuple[Any, Any]:
        """Loss and predictions."""
        x, y, weight = self._library.unpacked(batch)
        y_pred = self._backend.predictions(self._model, x, training)
        try:
            loss = self._outcomes.loss(x, y, y_pred, weight, training)
        except NoLoss as reason:
            return self._without_loss(str(reason)), packed(self._library, y_pred)
        except NotEvaluated:
            raise
        except Exception as error:
            if self._is_of_any_size(y_pred):
                raise NotEvaluated(f"the loss has to know the size of the batch: {cause_of(error)}") from error
            compiled = self._loss is not None or getattr(self._model, "loss", None) is not None
            why = why_no_loss(error, targets=y is not None) if compiled else f"{NO_LOSS} ({cause_of(error)})"
            loss = self._without_loss(why)
        return self._ops.cast(loss, "float32"), packed(self._library, y_pred)

    def _without_loss(self, reason: str) -> Any:
        """What stands for the loss: the statistics of the pass are worth having without it."""
        self.loss_reason = reason
        return self._ops.convert_to_tensor(np.float32(np.nan))

    # --- machinery -----------------------------------------------------------------------------------

    def _split(self, values: Any) -> list[Any]:
        if len(self._layers) < 2:
            return [values] * len(self._layers)
        return list(self._ops.split(values, [int(stop) for stop in self._segments.stops[:-1]]))

    def _scope(self, mean: Any, variance: Any) -> contextlib.AbstractContextManager[Scope]:
        statistics = list(zip(self._layers, self._split(mean), self._split(variance), strict=True))
        return self._backend.scope(self._model, self._engine.variables(), statistics)

    def _statistics(self, moving: Moments) -> tuple[Any, Any]:
        mean, variance = (self._ops.convert_to_tensor(np.float32(part)) for part in (moving.mean, moving.variance))
        return mean, variance

    def _joined(self, parts: Sequence[Any]) -> Any:
        # One tensor out of a pass: fetching a hundred small ones costs more than computing them.
        ops = self._ops
        return ops.concatenate([ops.cast(p, "float32") for p in parts]) if parts else ops.zeros((0,))

    def _is_of_any_size(self, y_pred: Any) -> bool:
        """Whether the graph of a pass is for batches of any size: TensorFlow makes one at the second size."""
        leaves = self._library.tree.flatten(y_pred)
        return any(leaf.shape[0] is None for leaf in leaves if len(getattr(leaf, "shape", ())))

    def _refuse_inner(self, outer: Any, index: int) -> None:
        if self._engine.where() is not outer:
            raise NotEvaluated(
                f"{self._layers[index].name!r} is called inside a loop or separate function (an RNN cell, a "
                "@tf.function), where batch statistics cannot be taken out; its moving statistics are still recorded"
            )

    @contextlib.contextmanager
    def _patched(self, replacement: Callable[..., Any]) -> Iterator[None]:
        """Route every BatchNorm call through ``replacement(index, call, args, kwargs)`` while tracing."""
        patched = []
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


def _mode(args: Any, kwargs: Any) -> bool:
    """Whether a layer is called in training mode."""
    return bool(kwargs.get("training", args[1] if len(args) > 1 else None))


def _rows_keep_their_places(*_: Any) -> Any:
    raise NotEvaluated("a stateful RNN carries the state of each row from batch to batch, so rows cannot change places")
