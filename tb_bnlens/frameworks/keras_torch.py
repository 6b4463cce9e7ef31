"""Keras 3 on PyTorch: passes run eagerly, without gradients, and what they do is undone behind them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import torch
from numpy.typing import NDArray

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.randomness import draws_refused
from tb_bnlens.capture.reasons import what_is
from tb_bnlens.capture.stopwatch import OneTimeCost
from tb_bnlens.capture.walk import Walk
from tb_bnlens.frameworks.keras3.backend import Look
from tb_bnlens.frameworks.keras3.batches import KerasBatches
from tb_bnlens.frameworks.keras3.feed import NO_LOOK
from tb_bnlens.frameworks.keras3.generation import LIBRARY, Keras3
from tb_bnlens.frameworks.keras3.objects import objects_of
from tb_bnlens.frameworks.torch.objects import CLOSED, PARTS, VISITS
from tb_bnlens.frameworks.torch.untouched import undone
from tb_bnlens.moments.recovery import Snapshot

Array = NDArray[np.floating[Any]]

OBJECTS = objects_of(LIBRARY, PARTS, CLOSED, VISITS)
EXPECTED = "pass arrays (x, y) or a list of batches"


class TorchEngine:
    """Runs functions as they are; see ``keras3.backend.Engine``."""

    out_of_memory = (torch.cuda.OutOfMemoryError,)

    def __init__(self, model: Any, loss: Callable[..., Any] | None = None) -> None:
        self._called = (model, loss)
        self.cost = OneTimeCost()
        self.accelerated = torch.cuda.is_available()
        self._known: set[Any] = set()

    def variables(self) -> Sequence[tuple[Any, Any]]:
        """None: a pass reads the variables when it runs."""
        return ()

    def where(self) -> Any:
        """The same everywhere: nothing is traced."""
        return None

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function.

        Raises:
            NotEvaluated: it draws random numbers from Python or NumPy.
        """
        self.trace(function, *args)
        with self._undone():
            return function(*args)

    def trace(self, function: Callable[..., Any], *args: Any) -> None:
        """Call it once for arguments of this kind, to see what it draws. Raises as ``run`` does."""
        key = function, tuple(_kind(leaf) for leaf in keras.tree.flatten(args))
        if key in self._known:
            return
        with self.cost.timed(), self._undone() as walk, draws_refused(walk):
            function(*args)
        self._known.add(key)

    def _undone(self) -> contextlib.AbstractContextManager[Walk]:
        return _undone(*self._called)

    def map(self, function: Callable[[Any], Any], indices: Any) -> Any:
        """One after another."""
        return torch.stack([function(index) for index in indices])

    def row(self, leaf: Any, index: Any) -> Any:
        """One row."""
        return leaf[index : index + 1]


class TorchReader:
    """Reads the moving statistics of some layers."""

    def __init__(self, layers: Sequence[Any]):
        self._layers = layers

    def read(self) -> Snapshot:
        """The moving statistics now, in one copy from the device."""
        variables = [*(t.layer.moving_mean for t in self._layers), *(t.averaged for t in self._layers)]
        # A copy, since on the CPU NumPy shares the memory of a tensor.
        flat = np.array(torch.cat([v.value.detach().float() for v in variables]).cpu().numpy())
        half = len(flat) // 2
        return Snapshot(flat[:half], flat[half:])


class TorchLook:
    """The batches that a step gets, which Keras has taken from the data already."""

    def __init__(self, data: Any, form: KerasBatches):
        self.given_back, self._form = data, form
        self.taken: list[Any] = []
        self.error: Exception | None = None

    def batches(self, count: int) -> list[Any]:
        """Up to ``count`` batches."""
        data = self.given_back
        if not isinstance(data, (list, tuple)):
            raise NotEvaluated(NO_LOOK.format(f"the step gets {what_is(data)}"))
        self.taken = list(data[:count])
        return [keras.tree.map_structure(self._copied, batch) for batch in self.taken]

    def _copied(self, leaf: Any) -> Any:
        # A data loader may write the next batch to the same memory.
        return leaf if leaf is None else self._form.tensor(leaf).clone()


class TorchBackend(Keras3):
    """See ``keras3.backend.Backend``."""

    packages = ("torch", "keras")
    end_of_data = (StopIteration,)

    def __init__(self) -> None:
        self.batches = KerasBatches(LIBRARY, EXPECTED)

    def engine(self, model: Any, loss: Callable[..., Any] | None = None) -> TorchEngine:
        """An engine for functions that call this model.

        Raises:
            NotEvaluated: it holds modules of PyTorch that keep state, which a pass would write to.
        """
        # Keras' layers are no submodules of a model, but what a layer holds is one of the layer.
        modules = ((layer, module) for layer in model._flatten_layers() for module in layer.modules())
        for layer, module in modules:
            if not isinstance(module, keras.layers.Layer) and next(module.buffers(recurse=False), None) is not None:
                raise NotEvaluated(
                    f"{layer.name!r} holds {what_is(module)} of PyTorch with buffers, which an extra pass would change"
                )
        return TorchEngine(model, loss)

    def undone(self, *called: Any) -> contextlib.AbstractContextManager[Any]:
        """Undo what these do to objects and tensors."""
        return _undone(*called)

    def reader(self, layers: Sequence[Any]) -> TorchReader:
        """A reader of these layers."""
        return TorchReader(layers)

    def sums(self, variables: Sequence[Any]) -> Callable[[], Array]:
        """Gives the sum of each of these variables."""
        return lambda: np.array([float(v.value.detach().double().sum()) for v in variables])

    def looks(self, function: Callable[..., Any]) -> Callable[[Any], Look]:
        """Looks at lists of batches."""
        return lambda data: TorchLook(data, self.batches)

    def attached(self, model: Any, state: Sequence[Any]) -> contextlib.AbstractContextManager[None]:
        """Nothing to do: the variables always hold their values."""
        return contextlib.nullcontext()

    def is_chief(self) -> bool:
        """Whether this is the first process."""
        distributed = torch.distributed
        return not (distributed.is_available() and distributed.is_initialized()) or bool(distributed.get_rank() == 0)

    def no_losses(self, model: Any) -> str:
        """Empty: losses are measured in every set-up."""
        return ""

    def in_parts(self, model: Any, batch: Any) -> str:
        """Empty: every batch is whole."""
        return ""

    def traced_by(self, batch: Any) -> str:
        """PyTorch's compiler."""
        return "a function under torch.compile" if torch.compiler.is_compiling() else ""


def _undone(*called: Any) -> contextlib.AbstractContextManager[Walk]:
    devices = {variable.value.device for thing in called for variable in getattr(thing, "variables", ())}
    return undone(devices, *called, objects=OBJECTS)


def _kind(leaf: Any) -> Any:
    return getattr(leaf, "shape", None), getattr(leaf, "dtype", type(leaf))


BACKEND = TorchBackend()
