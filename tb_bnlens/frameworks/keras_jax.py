"""Keras 3 on JAX: passes are compiled with the model's variables as arguments, and nothing is donated.

In the middle of an epoch Keras' variables hold nothing: the state goes from step to step as arguments and results.
Around a step it is attached to the variables, which costs no copy, so that all else reads them as anywhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.randomness import draws_refused
from tb_bnlens.capture.stopwatch import OneTimeCost
from tb_bnlens.frameworks.jax_errors import translated
from tb_bnlens.frameworks.keras3.backend import Look
from tb_bnlens.frameworks.keras3.batches import KerasBatches
from tb_bnlens.frameworks.keras3.feed import IteratorLook
from tb_bnlens.frameworks.keras3.generation import LIBRARY, Keras3
from tb_bnlens.frameworks.keras3.objects import called_undone, objects_of
from tb_bnlens.moments.recovery import Snapshot

Array = NDArray[np.floating[Any]]

OBJECTS = objects_of(LIBRARY, closed=(jax.Array,))
EXPECTED = "pass arrays (x, y) or a list of batches"
IN_A_LOOP = (
    "a BatchNorm layer is called inside a loop or separate function (an RNN cell), where batch statistics cannot be "
    "taken out; its moving statistics are still recorded"
)


class JaxEngine:
    """Runs functions compiled; see ``keras3.backend.Engine``."""

    out_of_memory = (MemoryError,)

    def __init__(self, model: Any, loss: Callable[..., Any] | None = None):
        self._model, self._loss = model, loss
        self.cost = OneTimeCost()
        self.accelerated = jax.default_backend() != "cpu"
        self._compiled: dict[Callable[..., Any], Any] = {}
        self._known: set[Any] = set()
        self._given: Sequence[tuple[Any, Any]] = ()

    def variables(self) -> Sequence[tuple[Any, Any]]:
        """All variables of the model, with the arguments that stand for them."""
        return self._given

    def where(self) -> Any:
        """The same everywhere: JAX itself notices values that leave a loop."""
        return None

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function compiled for these arguments.

        Raises:
            NotEvaluated: it would draw random numbers in Python, or has a BatchNorm layer in a loop.
        """
        self.trace(function, *args)
        return self._call(function, args)

    def trace(self, function: Callable[..., Any], *args: Any) -> None:
        """Have it compiled for these arguments, unless that was done. Raises as ``run`` does."""
        key = function, tuple(_kind(leaf) for leaf in jax.tree_util.tree_leaves(args))
        if key in self._known:
            return
        with self.cost.timed(), OBJECTS.put_back(self._model, self._loss) as walk, draws_refused(walk):
            jax.block_until_ready(self._call(function, args))
        self._known.add(key)

    def map(self, function: Callable[[Any], Any], indices: Any) -> Any:
        """A loop of the program."""
        return jax.lax.map(function, indices)

    def row(self, leaf: Any, index: Any) -> Any:
        """One row."""
        return jax.lax.dynamic_index_in_dim(leaf, index)

    def _call(self, function: Callable[..., Any], args: Any) -> Any:
        if function not in self._compiled:
            self._compiled[function] = jax.jit(lambda values, args: self._with(values, function, args))
        with translated(IN_A_LOOP):
            return self._compiled[function]([v.value for v in self._variables()], args)

    def _with(self, values: Sequence[Any], function: Callable[..., Any], args: Any) -> Any:
        before, self._given = self._given, list(zip(self._variables(), values, strict=True))
        try:
            return function(*args)
        finally:
            self._given = before

    def _variables(self) -> list[Any]:
        return [*self._model.variables, *self._model.metrics_variables]


class JaxReader:
    """Reads the moving statistics of some layers."""

    def __init__(self, layers: Sequence[Any]):
        self._layers = layers

    def read(self) -> Snapshot:
        """The moving statistics now, as copies: the next step may take the memory of the arrays."""
        means = [_numpy(t.layer.moving_mean) for t in self._layers]
        spreads = [_numpy(t.averaged) for t in self._layers]
        return Snapshot(np.concatenate(means), np.concatenate(spreads))


class JaxBackend(Keras3):
    """See ``keras3.backend.Backend``."""

    packages = ("jax", "keras")
    end_of_data = (StopIteration,)

    def __init__(self) -> None:
        self.batches = KerasBatches(LIBRARY, EXPECTED)

    def engine(self, model: Any, loss: Callable[..., Any] | None = None) -> JaxEngine:
        """An engine for functions that call this model.

        Raises:
            NotEvaluated: several processes train it, and a pass of one of them would wait for the others.
        """
        if jax.process_count() > 1:
            raise NotEvaluated("several processes train the model, and a pass on one of them would wait for the others")
        return JaxEngine(model, loss)

    def undone(self, *called: Any) -> contextlib.AbstractContextManager[None]:
        """Undo what these do to Python objects."""
        return called_undone(OBJECTS, *called)

    def reader(self, layers: Sequence[Any]) -> JaxReader:
        """A reader of these layers."""
        return JaxReader(layers)

    def sums(self, variables: Sequence[Any]) -> Callable[[], Array]:
        """Gives the sum of each of these variables."""
        return lambda: np.array([float(np.sum(_numpy(v), dtype=np.float64)) for v in variables])

    def looks(self, function: Callable[..., Any]) -> Callable[[Any], Look]:
        """Looks at iterators."""
        return lambda data: IteratorLook(data, self.batches)

    @contextlib.contextmanager
    def attached(self, model: Any, state: Sequence[Any]) -> Iterator[None]:
        """Have the variables hold this state, or the (logs, state) of a result without its logs."""
        if len(state) != 1:
            yield
            return
        optimizer = getattr(model, "optimizer", None)
        parts = (
            model.trainable_variables,
            model.non_trainable_variables,
            optimizer.variables if optimizer is not None else [],
            model.metrics_variables,
        )
        pairs = [pair for own, values in zip(parts, state[0], strict=True) for pair in zip(own, values, strict=True)]
        before = [variable._value for variable, _ in pairs]
        try:
            for variable, value in pairs:
                variable._value = value
            yield
        finally:
            for (variable, _), value in zip(pairs, before, strict=True):
                variable._value = value

    def is_chief(self) -> bool:
        """Whether this is the first process."""
        return bool(jax.process_index() == 0)

    def no_losses(self, model: Any) -> str:
        """Batches are recorded whatever the distribution: they are arrays over all devices."""
        return ""

    def in_parts(self, model: Any, batch: Any) -> str:
        """Empty: every batch is whole."""
        return ""

    def traced_by(self, batch: Any) -> str:
        """A batch stands for the argument of a function that is being traced."""
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree_util.tree_leaves(batch))
        return "a function under jax.jit" if traced else ""


def _numpy(variable: Any) -> NDArray[np.float32]:
    return np.array(variable.value, np.float32)


def _kind(leaf: Any) -> Any:
    return getattr(leaf, "shape", None), str(getattr(leaf, "dtype", type(leaf))), str(getattr(leaf, "sharding", ""))


BACKEND = JaxBackend()
