"""Trace functions that run the user's model, without side effects, and know how long that takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tb_bnlens.capture.randomness import draws_refused
from tb_bnlens.capture.stopwatch import OneTimeCost
from tb_bnlens.frameworks.keras_tensorflow.side_effects import refuse_mutation

OPTIONS: dict[str, Any] = {"reduce_retracing": True, "autograph": False, "jit_compile": False}
"""How passes are traced: as plain graphs, so that neither AutoGraph nor XLA reads the user's code a second time."""


class Tracer:
    """Runs functions as graphs. Tracing is a one-time cost, counted apart from the passes."""

    def __init__(self) -> None:
        self.cost = OneTimeCost()
        self._checked: set[int] = set()
        self._known: set[Any] = set()
        self._traced: dict[Callable[..., Any], Any] = {}

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function as a graph.

        Raises:
            NotEvaluated: it would write to something outside itself or draw random numbers in Python; it is not called
                then.
        """
        self.trace(function, *args)
        return self._traced[function](*args)

    def trace(self, function: Callable[..., Any], *args: Any) -> None:
        """Trace it for these arguments, unless that was done. Raises as ``run`` does."""
        # Asking the function itself takes longer than a small pass.
        key = function, tuple(_kind(leaf) for leaf in keras.tree.flatten(args))
        if key in self._known:
            return
        traced = self._traced.setdefault(function, tf.function(function, **OPTIONS))
        wall, cpu = time.perf_counter(), time.process_time()
        traces = traced.experimental_get_tracing_count()
        with draws_refused():
            concrete = traced.get_concrete_function(*args)
        if id(concrete) not in self._checked:
            refuse_mutation(concrete)
            self._checked.add(id(concrete))
        if traced.experimental_get_tracing_count() != traces:
            self.cost.seconds += time.perf_counter() - wall
            self.cost.cpu_seconds += time.process_time() - cpu
        self._known.add(key)


def _kind(leaf: Any) -> Any:
    return (leaf.shape, leaf.dtype) if isinstance(leaf, tf.Tensor) else type(leaf)
