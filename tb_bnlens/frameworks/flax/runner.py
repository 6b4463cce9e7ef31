"""The passes of a measurement over an nnx module; see ``capture.passes.Runner``.

Each is a compiled function of the module's state, which is merged into a copy inside: what the pass writes, to
statistics, counters or random streams, is dropped with the copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.passes import Outcome
from tb_bnlens.capture.randomness import draws_refused
from tb_bnlens.capture.reasons import in_pass
from tb_bnlens.capture.stopwatch import OneTimeCost
from tb_bnlens.frameworks.flax import batches as of
from tb_bnlens.frameworks.flax.layers import FlaxLayer, find_layers
from tb_bnlens.frameworks.flax.measured import CURRENT, Calls, watch
from tb_bnlens.frameworks.flax.objects import OBJECTS
from tb_bnlens.frameworks.flax.outcomes import Outcomes
from tb_bnlens.frameworks.jax_errors import translated
from tb_bnlens.moments.layers import gains
from tb_bnlens.moments.moments import Mask, Moments
from tb_bnlens.moments.recovery import Snapshot
from tb_bnlens.moments.segments import Segments
from tb_bnlens.moments.statistics import calls_of, mean_of_calls

Forward = Callable[[Any, Any, bool], Any]

IN_A_LOOP = (
    "a BatchNorm layer is called inside a transformation (nnx.scan, nnx.remat, nnx.jit), where batch statistics cannot "
    "be taken out; its moving statistics are still recorded"
)


@dataclass
class Program:
    """A pass compiled for one structure of the module and one shape of batch."""

    function: Callable[..., Any]
    calls: Calls = field(default_factory=Calls)
    """Of its trace, without the values."""
    loss_reason: str = ""


class FlaxRunner:
    """Passes over one module.

    Args:
        model: an ``nnx.Module``.
        layers: its BatchNorm layers.
        segments: their channels.
        loss: ``loss(predictions, target)``.
        metrics: name -> ``metric(predictions, target)``.
        forward: ``forward(model, x, training)`` where the model is not called as ``model(x)``.

    Raises:
        NotEvaluated: a pass in this process alone would not be one over the model.
    """

    out_of_memory: tuple[type[Exception], ...] = (MemoryError,)
    always_by_batch = carries_state = trains_by_batch = False
    unreached: Sequence[str] = ()

    def __init__(
        self,
        model: Any,
        layers: Sequence[FlaxLayer],
        segments: Segments,
        loss: Callable[..., Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        forward: Forward | None = None,
    ):
        if jax.process_count() > 1:
            raise NotEvaluated("several processes train the model, and a pass on one of them would wait for the others")
        grouped = [layer.name for layer in layers if layer.module.axis_index_groups is not None]
        if grouped:
            raise NotEvaluated(
                f"{grouped[0]!r} has axis_index_groups, and outside of training there are no such groups"
            )
        self._model, self._layers, self._segments = model, tuple(layers), segments
        self._forward = forward or call
        self._called = (model, self._forward, loss)
        self._outcomes = Outcomes(loss, metrics)
        self._programs: dict[Any, Program] = {}
        self.tracing = OneTimeCost()
        self.accelerated = jax.default_backend() != "cpu"
        self.loss_reason = ""
        self.order: Sequence[int] = ()
        self.trains: dict[int, bool] = {}
        self.at_inference: dict[int, bool] = {}
        self.gain = gains(self._layers)
        self.rows, self.weights = self._outcomes.rows, self._outcomes.weights
        self.metric_state, self.update = self._outcomes.metric_state, self._outcomes.update
        self.metrics = self._outcomes.metrics
        self.compose, self.inputs = of.compose, of.inputs

    def trained(self) -> Mask:
        """Layers that normalize by the batch in training, [L]: not called in inference mode."""
        return np.asarray([self.trains.get(i, True) for i in range(len(self._layers))], bool)

    def count_calls(self, batch: Any) -> None:
        """Find ``order`` by compiling a pass."""
        nothing = np.zeros(len(self._segments.layer))
        self.batch(batch, Moments(nothing, nothing + 1))

    # --- the passes ----------------------------------------------------------------------------------

    @in_pass("an inference pass")
    def inference(self, batch: Any, moving: Moments) -> Outcome:
        """Every layer on these moving statistics, everything else in inference mode."""
        calls, (loss, predictions, *_) = self._run(self._trace_inference, batch, *_statistics(moving))
        self.at_inference = dict(calls.by_batch)
        return Outcome(float(loss), predictions)

    @in_pass("a pass with batch statistics")
    def batch(self, batch: Any, moving: Moments, on_moving: Mask | None = None) -> Outcome:
        """Every channel on the batch's statistics, but for those of the mask [C_total]; else in inference mode."""
        if on_moving is None or not np.any(on_moving):
            calls, result = self._run(self._trace_batch, batch)
        else:
            statistics = (*_statistics(moving), np.asarray(on_moving, bool))
            calls, result = self._run(self._trace_partly, batch, *statistics)
        loss, predictions, means, variances, *_ = result
        self.order = tuple(calls.order)
        by_layer = self._calls(calls.order, means, variances)
        several = {i: each for i, each in by_layer.items() if len(each) > 1}
        return Outcome(float(loss), predictions, mean_of_calls(by_layer, self._segments), several)

    @in_pass("a training pass")
    def training(self, batch: Any) -> Outcome:
        """As the training step does: every layer in the mode that it is in now."""
        self.gain = gains(self._layers)
        calls, (loss, predictions, means, variances, *after) = self._run(self._trace_training, batch)
        self.trains = dict(calls.by_batch)
        moments = mean_of_calls(self._calls(calls.order, means, variances), self._segments)
        mean, variance = (np.asarray(part, np.float64) for part in after)
        return Outcome(float(loss), predictions, moments, after=Snapshot(mean, variance))

    def _calls(self, order: Sequence[int], *parts: Any) -> dict[int, list[Moments]]:
        means, variances = (np.asarray(part, np.float64) for part in parts)
        return calls_of(order, means, variances, self._segments)

    # --- traces --------------------------------------------------------------------------------------

    def _trace_inference(self, model: Any, calls: Calls, batch: Any, mean: Any, variance: Any) -> Any:
        for layer, m, v in zip(find_layers(model), self._split(mean), self._split(variance), strict=True):
            layer.module.mean[...], layer.module.var[...] = m, v
        model.eval()
        return self._forward(model, batch.x, False)

    def _trace_batch(self, model: Any, calls: Calls, batch: Any) -> Any:
        calls.as_called = False
        model.eval()
        return self._forward(model, batch.x, False)

    def _trace_partly(self, model: Any, calls: Calls, batch: Any, mean: Any, variance: Any, on_moving: Any) -> Any:
        calls.given = list(zip(*map(self._split, (mean, variance, on_moving)), strict=True))
        return self._trace_batch(model, calls, batch)

    def _trace_training(self, model: Any, calls: Calls, batch: Any) -> Any:
        return self._forward(model, batch.x, True)

    # --- machinery -----------------------------------------------------------------------------------

    def _run(self, trace: Callable[..., Any], batch: Any, *args: Any) -> tuple[Calls, Any]:
        """The calls of a pass, and what ``_program`` gives."""
        graph, state = nnx.split(self._model)
        shapes = tuple(map(_shape, jax.tree.leaves((state, batch, args))))
        key = trace.__name__, graph, jax.tree.structure(batch), shapes
        with translated(IN_A_LOOP):
            if key not in self._programs:
                self._programs[key] = self._compiled(self._program(trace, graph), state, batch, *args)
            program = self._programs[key]
            result = program.function(state, batch, *args)
        self.loss_reason = self.loss_reason or program.loss_reason
        return program.calls, result

    def _compiled(self, program: Program, *args: Any) -> Program:
        with self.tracing.timed(), OBJECTS.put_back(*self._called) as walk, draws_refused(walk):
            jax.block_until_ready(program.function(*args))
        return program

    def _program(self, trace: Callable[..., Any], graph: Any) -> Program:
        """A pass that gives the loss, predictions, mean and variance of each call, and the statistics after it."""

        def traced(state: Any, batch: Any, *args: Any) -> Any:
            model = nnx.merge(graph, state)
            layers = find_layers(model)
            watch(layers)
            calls = Calls()
            token = CURRENT.set(calls)
            try:
                predictions = trace(model, calls, batch, *args)
            finally:
                CURRENT.reset(token)
            program.calls = Calls(calls.order, by_batch=calls.by_batch)
            of_calls = (_joined([moments[i] for moments in calls.moments]) for i in range(2))
            after = (_joined([getattr(t.module, part)[...] for t in layers]) for part in ("mean", "var"))
            return self._loss(program, predictions, batch), predictions, *of_calls, *after

        program = Program(jax.jit(traced))
        return program

    def _loss(self, program: Program, predictions: Any, batch: Any) -> Any:
        try:
            return self._outcomes.loss(predictions, batch.y)
        except NotEvaluated as reason:
            # The statistics of the pass are worth having without it.
            program.loss_reason = str(reason)
            return jnp.float32(jnp.nan)

    def _split(self, values: Any) -> list[Any]:
        return [values[a:b] for a, b in zip(self._segments.starts, self._segments.stops, strict=True)]


def call(model: Any, x: Any, _training: bool) -> Any:
    """Predictions of a module that takes no mode: a tuple is its arguments."""
    return model(*x) if isinstance(x, tuple) else model(x)


def _statistics(moving: Moments) -> tuple[Any, Any]:
    return np.asarray(moving.mean, np.float32), np.asarray(moving.variance, np.float32)


def _shape(leaf: Any) -> Any:
    return getattr(leaf, "shape", None), str(getattr(leaf, "dtype", type(leaf))), str(getattr(leaf, "sharding", ""))


def _joined(parts: Sequence[Any]) -> Any:
    return jnp.concatenate([part.astype(jnp.float32) for part in parts]) if parts else jnp.zeros(0)
