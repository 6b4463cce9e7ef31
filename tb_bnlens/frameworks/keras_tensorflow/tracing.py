"""Trace functions that run the user's model, without side effects, and know how long that takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tb_bnlens.capture.randomness import draws_refused
from tb_bnlens.capture.stopwatch import OneTimeCost
from tb_bnlens.frameworks.keras3.library import Library
from tb_bnlens.frameworks.keras_tensorflow.side_effects import refuse_mutation

PutBack = Callable[[], contextlib.AbstractContextManager[Any]]
OPTIONS: dict[str, Any] = {"reduce_retracing": True, "autograph": False, "jit_compile": False}
"""How passes are traced: as plain graphs, so that neither AutoGraph nor XLA reads the user's code a second time."""


class Tracer:
    """Runs functions as graphs. Tracing and the first run are one-time costs, counted apart from the passes.

    Args:
        library: whose models they run.
        any_size: trace once for batches of any size: the final measurement makes passes over larger ones, and over
            single rows. Only where no code but Keras' own runs. A layer's ``tf.function`` has been traced by ``fit``
            for its batches, and a trace for others, made inside of a pass, would be wrong outside of it. A loss may
            have to know the size.
        put_back: undoes what code other than Keras' own does to Python objects in a block, where such code runs. It
            might draw random numbers when it is traced too. Refusing that takes longer than the trace itself.
    """

    def __init__(self, library: Library, any_size: bool, put_back: PutBack | None) -> None:
        self._tree, self._any_size, self._put_back = library.tree, any_size, put_back
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
        traced_now = self.trace(function, *args)
        traced = self._traced[function]
        if not traced_now:
            return traced(*args)
        # TensorFlow optimizes a graph when it is first run, which takes as long as tracing it.
        with self.cost.timed():
            return traced(*args)

    def trace(self, function: Callable[..., Any], batch: Any, *others: Any) -> bool:
        """Trace it for these arguments, unless that was done. Raises as ``run`` does.

        Returns:
            Whether it was traced just now.
        """
        # Asking the function itself takes longer than a small pass.
        key = self._key(function, batch, others)
        if key in self._known:
            return False
        if function not in self._traced:
            self._traced[function] = tf.function(function, **OPTIONS)
        traced = self._traced[function]
        wall, cpu = time.perf_counter(), time.process_time()
        traces = traced.experimental_get_tracing_count()
        with contextlib.ExitStack() as stack:
            if self._put_back is not None:
                walk = stack.enter_context(self._put_back())
                stack.enter_context(draws_refused(walk))
            concrete = self._concrete(traced, batch, others)
        if id(concrete) not in self._checked:
            self._refuse(concrete)
            self._checked.add(id(concrete))
        new = traced.experimental_get_tracing_count() != traces
        if new:
            self.cost.add_since(wall, cpu)
        self._known.add(self._key(function, batch, others))
        return bool(new)

    def _refuse(self, concrete: Any) -> None:
        """Raise ``NotEvaluated`` if running it would change training."""
        refuse_mutation(concrete)

    def _concrete(self, function: Any, batch: Any, others: tuple[Any, ...]) -> Any:
        if self._any_size:
            try:
                return function.get_concrete_function(self._tree.map_structure(_of_any_size, batch), *others)
            except Exception:
                self._any_size = False  # something has to know the size after all
        return function.get_concrete_function(batch, *others)

    def _key(self, function: Callable[..., Any], batch: Any, others: tuple[Any, ...]) -> Any:
        leaves = self._tree.flatten(batch)
        sized = map(_of_any_size, leaves) if self._any_size else leaves
        return function, tuple(map(_kind, sized)), tuple(map(_kind, self._tree.flatten(others)))


def _of_any_size(leaf: Any) -> Any:
    return tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype) if isinstance(leaf, tf.Tensor) and leaf.ndim else leaf


def _kind(leaf: Any) -> Any:
    return (tuple(leaf.shape), leaf.dtype) if isinstance(leaf, tf.Tensor | tf.TensorSpec) else type(leaf)
