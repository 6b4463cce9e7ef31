"""Keras on TensorFlow: passes are traced as plain graphs, which are searched for side effects before they run."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tb_bnlens.frameworks.keras3.backend import Look
from tb_bnlens.frameworks.keras3.feed import NO_LOOK
from tb_bnlens.frameworks.keras3.library import Library
from tb_bnlens.frameworks.keras3.objects import called_undone, objects_of
from tb_bnlens.frameworks.keras3.own_code import has_keras_metrics, is_all_keras
from tb_bnlens.frameworks.keras_tensorflow.batches import EXPECTED, TensorBatches
from tb_bnlens.frameworks.keras_tensorflow.look import END_OF_DATA, DatasetLooks, has_one_replica, strategy_name
from tb_bnlens.frameworks.keras_tensorflow.reader import SnapshotReader, local_values, read
from tb_bnlens.frameworks.keras_tensorflow.side_effects import refuse_traced_calls
from tb_bnlens.frameworks.keras_tensorflow.tracing import PutBack, Tracer
from tb_bnlens.frameworks.keras_tensorflow.tracked import TRACKED

Array = NDArray[np.floating[Any]]


IN_PARTS = (
    "the batch is one of {}, with a part for each replica, which the model itself does not take; "
    "pass probe_data=(x, y) to have the losses measured on it"
)
"""Of the strategy."""


class TensorFlowEngine(Tracer):
    """Runs functions as graphs; see ``keras3.backend.Engine``."""

    out_of_memory = (tf.errors.ResourceExhaustedError,)

    def __init__(self, library: Library, any_size: bool, put_back: PutBack | None) -> None:
        super().__init__(library, any_size, put_back)
        self.accelerated = bool(tf.config.list_logical_devices("GPU"))

    def variables(self) -> Sequence[tuple[Any, Any]]:
        """None: a graph reads the variables when it runs."""
        return ()

    def where(self) -> Any:
        """The graph that is being traced."""
        return tf.compat.v1.get_default_graph()

    def map(self, function: Callable[[Any], Any], indices: Any) -> Any:
        """A loop of the graph."""
        return tf.map_fn(function, indices, fn_output_signature=tf.float32)

    def row(self, leaf: Any, index: Any) -> Any:
        """One row, of ragged tensors too."""
        return tf.gather(leaf, [index])


class OnTensorFlow:
    """What both generations of Keras have in common there; see ``keras3.backend.Backend``.

    Args:
        library: the generation.
    """

    end_of_data = END_OF_DATA

    def __init__(self, library: Library) -> None:
        self.library = library
        self.batches = TensorBatches(library, EXPECTED)
        self._objects = objects_of(library, closed=(tf.Variable,), visits=TRACKED)

    def put_back(self, model: Any, loss: Callable[..., Any] | None) -> PutBack:
        """Undoes what a trace does to Python objects; see ``Tracer``."""
        return functools.partial(self._objects.put_back, model, loss)

    def engine(self, model: Any, loss: Callable[..., Any] | None = None) -> TensorFlowEngine:
        """An engine for functions that call this model."""
        refuse_traced_calls(model)
        own = is_all_keras(self.library, model, loss)
        alone = own and has_keras_metrics(self.library, model)
        return TensorFlowEngine(self.library, own, None if alone else self.put_back(model, loss))

    def undone(self, *called: Any) -> contextlib.AbstractContextManager[None]:
        """Undo what these do to Python objects."""
        return called_undone(self._objects, *called)

    def reader(self, layers: Sequence[Any]) -> SnapshotReader:
        """A reader of these layers."""
        return SnapshotReader(layers)

    def sums(self, variables: Sequence[Any]) -> Callable[[], Array]:
        """Gives the sum of each of these variables."""
        # A traced function would take a fiftieth of a second to make, which few epochs earn back.
        held = [local_values(v)[0] for v in variables]
        return lambda: np.array([np.sum(read(v), dtype=np.float64) for v in held])

    def looks(self, function: Callable[..., Any]) -> Callable[[Any], Look]:
        """Looks at iterators."""
        return DatasetLooks(function, self.batches)

    def attached(self, model: Any, state: Sequence[Any]) -> contextlib.AbstractContextManager[Any]:
        """Nothing to do: the variables always hold their values."""
        return contextlib.nullcontext()

    def is_chief(self) -> bool:
        """Whether this process is the one that writes, in multi-worker training."""
        resolver = getattr(tf.distribute.get_strategy(), "cluster_resolver", None)
        if resolver is None or resolver.task_type is None:
            return True
        return bool(resolver.task_type == "chief" or (resolver.task_type == "worker" and resolver.task_id == 0))

    def no_losses(self, model: Any) -> str:
        """Why training batches cannot be recorded: a strategy."""
        around = [tf.distribute.get_strategy()] if tf.distribute.has_strategy() else []
        for strategy in (model.distribute_strategy, *around):
            if strategy.num_replicas_in_sync > 1 or (strategy in around and not has_one_replica(strategy)):
                return NO_LOOK.format(f"training runs under {strategy_name(strategy)}")
        return ""

    def in_parts(self, model: Any, batch: Any) -> str:
        """Why a batch is none that a model takes: a strategy has given each replica a part of it."""
        if any(isinstance(leaf, tf.distribute.DistributedValues) for leaf in self.library.tree.flatten(batch)):
            return IN_PARTS.format(type(model.distribute_strategy).__name__)
        return ""

    def traced_by(self, batch: Any) -> str:
        """A ``tf.function``."""
        return "" if tf.executing_eagerly() else "a tf.function"
