"""What Keras' backends do differently, and the one that runs. Each is a module with a ``BACKEND``."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.adapter import StatisticsReader
from tb_bnlens.capture.stopwatch import OneTimeCost

if TYPE_CHECKING:
    from tb_bnlens.frameworks.keras3.batches import KerasBatches

Array = NDArray[np.floating[Any]]
MODULES = {"tensorflow": "keras_tensorflow.backend", "jax": "keras_jax", "torch": "keras_torch"}


class Engine(Protocol):
    """Runs functions that are written with ``keras.ops`` and call a model, without side effects."""

    @property
    def cost(self) -> OneTimeCost:
        """What tracing and compiling has taken."""

    @property
    def accelerated(self) -> bool:
        """Whether the model may run elsewhere than on the CPU."""

    @property
    def out_of_memory(self) -> tuple[type[Exception], ...]:
        """What ``run`` raises where memory ends."""

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function, compiled where the backend compiles.

        Raises:
            NotEvaluated: it would write to something outside itself or draw random numbers in Python.
        """

    def trace(self, function: Callable[..., Any], *args: Any) -> object:
        """Have its Python code run for these arguments, unless that was done. Raises as ``run`` does."""

    def variables(self) -> Sequence[tuple[Any, Any]]:
        """In a function that runs: the model's variables with their values, where they are arguments of it."""

    def where(self) -> Any:
        """In a function that runs: the graph that is traced. It differs inside of a loop of the graph."""

    def map(self, function: Callable[[Any], Any], indices: Any) -> Any:
        """In a function that runs: float32 scalars of the function for each of the indices, as one tensor."""

    def row(self, leaf: Any, index: Any) -> Any:
        """In a function that runs: one row of a tensor, as a tensor with one row."""


class Look(Protocol):
    """The batches of a coming step, and what the step gets in place of its data."""

    @property
    def taken(self) -> Sequence[Any]:
        """What was seen."""

    def batches(self, count: int) -> list[Any]:
        """Up to ``count`` batches; fewer at the end of the data."""

    @property
    def given_back(self) -> Any:
        """What the step gets. Kept ready: nothing of the lens may fail between the look and the step."""

    @property
    def error(self) -> Exception | None:
        """What the data raised in the look, for the step to meet."""


class Backend(Protocol):
    """A backend of Keras."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Distributions whose versions tell a record's reader what made it."""

    @property
    def batches(self) -> KerasBatches:
        """What batches are made of."""

    @property
    def end_of_data(self) -> tuple[type[BaseException], ...]:
        """What a step raises where the data end."""

    def engine(self, model: Any, loss: Callable[..., Any] | None = None) -> Engine:
        """An engine for functions that call this model, and this loss where it stands in for the compiled one.

        Raises:
            NotEvaluated: the model cannot be run an extra time without changing its training.
        """

    def reader(self, layers: Sequence[Any]) -> StatisticsReader:
        """A reader of these layers."""

    def sums(self, variables: Sequence[Any]) -> Callable[[], Array]:
        """Gives the sum of each of these variables."""

    def looks(self, function: Callable[..., Any]) -> Callable[[Any], Look]:
        """What looks at the last argument of this train function."""

    def attached(self, model: Any, state: Sequence[Any]) -> contextlib.AbstractContextManager[None]:
        """Have the model's variables hold the state that a train function gets or gives, if that is one of its values.

        Args:
            model: the model.
            state: the arguments before the data, or what follows the logs in the result.
        """

    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""

    def no_losses(self, model: Any) -> str:
        """Why training batches cannot be recorded in a fit of this model; empty where they can."""

    def traced_by(self, batch: Any) -> str:
        """What traces the Python code that has this batch, so that nothing can be read; empty where nothing does."""


def backend() -> Backend:
    """The one that Keras runs on."""
    module = importlib.import_module(f"tb_bnlens.frameworks.{MODULES[keras.config.backend()]}")
    found: Backend = module.BACKEND
    return found


def host(value: Any) -> NDArray[Any]:
    """A variable or tensor as an array of NumPy, which may share its memory."""
    # NumPy asks more of what it converts than Keras' variables know, unless they are converted as they are.
    is_variable = hasattr(value, "assign") and hasattr(value, "_value")
    return np.asarray(value if is_variable else keras.ops.convert_to_numpy(value))


def is_plain(leaf: Any) -> bool:
    """Whether this is a tensor with a shape, neither ragged nor sparse."""
    composite = ("RaggedTensor", "SparseTensor", "IndexedSlices")
    return bool(keras.ops.is_tensor(leaf)) and type(leaf).__name__ not in composite
