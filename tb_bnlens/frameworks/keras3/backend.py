"""What Keras' backends do differently, and which one a model runs on. Each is a module with a ``BACKEND``."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.adapter import StatisticsReader
from tb_bnlens.capture.reasons import what_is
from tb_bnlens.capture.stopwatch import OneTimeCost
from tb_bnlens.frameworks.keras3.library import Library
from tb_bnlens.frameworks.support import is_keras_2

if TYPE_CHECKING:
    from tb_bnlens.frameworks.keras3.batches import KerasBatches
    from tb_bnlens.frameworks.keras3.layers import KerasLayer
    from tb_bnlens.frameworks.keras3.outcomes import Outcomes

Array = NDArray[np.floating[Any]]
MODULES = {"tensorflow": "keras_tensorflow.backend", "jax": "keras_jax", "torch": "keras_torch"}
KERAS_2_MODULE = "keras2.backend"


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
        """Up to ``count`` batches; fewer at the end of the data.

        Raises:
            NotEvaluated: no batch can be taken and handed back; none is taken then.
        """

    @property
    def given_back(self) -> Any:
        """What the step gets. Kept ready: nothing of the lens may fail between the look and the step."""

    @property
    def error(self) -> Exception | None:
        """What the data raised in the look, for the step to meet."""


class Scope(Protocol):
    """Statistics that layers read in a pass in place of their own. What a layer assigns is kept here and not made."""

    def put(self, layer: KerasLayer, mean: Any, variance: Any) -> None:
        """Have a layer read these from now on, [C] each."""

    def averages(self, layer: KerasLayer) -> tuple[Any, Any]:
        """The moving mean, and the moving average beside it, as the layer has assigned them, [C] each."""


Statistics = Sequence[tuple["KerasLayer", Any, Any]]
"""Layers with the mean and variance that they read, [C] each."""


class Backend(Protocol):
    """A backend of Keras 3, or Keras 2."""

    @property
    def framework(self) -> str:
        """Which of ``metadata.FRAMEWORKS``."""

    @property
    def library(self) -> Library:
        """The generation of Keras."""

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

    def scope(
        self, model: Any, variables: Sequence[tuple[Any, Any]], statistics: Statistics
    ) -> contextlib.AbstractContextManager[Scope]:
        """In a function that runs: have the model write nothing and these layers read these statistics.

        Args:
            model: what the function calls.
            variables: what ``Engine.variables`` gives.
            statistics: for the layers that do not read their own.
        """

    def moments(self, layer: Any, args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
        """Mean and variance of the inputs of a call, and the variance as the layer averages it, [C] each."""

    def undone(self, *called: Any) -> contextlib.AbstractContextManager[Any]:
        """Undo what these do where they are called as they are, and not in a function that an engine runs.

        Raises:
            NotEvaluated: it cannot be undone.
        """

    def outcomes(self, model: Any, engine: Engine, loss: Callable[..., Any] | None) -> Outcomes:
        """Loss and metrics of this model."""

    def predictions(self, model: Any, x: Any, training: bool) -> Any:
        """Call the model in this mode."""

    def built_apart(self, model: Any, batch: Any) -> contextlib.AbstractContextManager[None]:
        """Have a built loss and built metrics in a block, also where ``fit`` and ``evaluate`` have not built them."""

    def trains_as_it_infers(self, model: Any, loss: Callable[..., Any] | None) -> bool:
        """Whether training mode is known to differ from inference in what BatchNorm normalizes with, and in no more."""

    def traces_steps(self, model: Any) -> bool:
        """Whether ``fit`` compiles the step, which keeps the momentum of then."""

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

    def in_parts(self, model: Any, batch: Any) -> str:
        """Why a batch that a loop shows is not one that a model takes; empty where it is."""

    def traced_by(self, batch: Any) -> str:
        """What traces the Python code that has this batch, so that nothing can be read; empty where nothing does."""


def backend(model: Any) -> Backend:
    """The one that a model runs on.

    Raises:
        ValueError: this is not a Keras model, for Keras or what it runs on is not installed.
    """
    try:
        if is_keras_2(model):
            name = KERAS_2_MODULE
        else:
            name = MODULES[importlib.import_module("keras").config.backend()]
        found: Backend = importlib.import_module(f"tb_bnlens.frameworks.{name}").BACKEND
    except ModuleNotFoundError as error:
        raise ValueError(
            f"model is {what_is(model)}; expected a keras.Model, and {error.name} is not installed here"
        ) from error
    return found
