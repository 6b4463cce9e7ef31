"""``capture.adapter.ModelAdapter`` for a Keras 3 model on any backend."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.adapter import BatchFormat, StatisticsReader
from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.frameworks.keras3.backend import backend
from tb_bnlens.frameworks.keras3.layers import KerasLayer, find_layers, has_call, has_own_step, norms_built, parts_built
from tb_bnlens.frameworks.keras3.own_code import is_of_keras
from tb_bnlens.frameworks.keras3.runner import KerasRunner
from tb_bnlens.moments.segments import Segments

Array = NDArray[np.floating[Any]]

MARKED_WEIGHTS = 16
"""Trainable variables that are compared, the smallest ones: each step moves most of them, and reading them is cheap."""
NOT_CALLED = (
    "training calls parts of the model and never the model itself, so there is no forward pass to measure; give the "
    "model a call() and compile(loss=...) to have the losses measured"
)


class KerasModel:
    """A Keras model; it may be built later.

    Args:
        model: the model.
        loss: ``loss(y_true, y_pred)``, for models that are not compiled with one.
    """

    def __init__(self, model: Any, loss: Callable[..., Any] | None = None):
        self._model, self._loss, self._backend = model, loss, backend(model)
        self.framework = self._backend.framework
        self._mark: Callable[[], Array] | None = None

    @property
    def batches(self) -> BatchFormat:
        """What its batches are made of."""
        return self._backend.batches

    called = ""

    def untracked(self) -> tuple[str, ...]:
        """None: every layer has statistics."""
        return ()

    def not_read(self) -> tuple[str, ...]:
        """None that is known of."""
        return ()

    def left_out(self, layers: Sequence[Any]) -> tuple[int, ...]:
        """Those whose weights a built optimizer of Keras 3 lacks; one of Keras 2 takes up new ones at any step.

        A train_step of the user's may have an optimizer for each part.
        """
        if has_own_step(self._model):
            return ()
        optimizer = counting_optimizer(self._model)
        known = {id(variable) for variable in getattr(optimizer, "_trainable_variables", ())}
        if not known or not getattr(optimizer, "built", False):
            return ()
        weights = [[id(variable) for variable in layer.layer.trainable_variables] for layer in layers]
        return tuple(i for i, own in enumerate(weights) if own and known.isdisjoint(own))

    def is_chief(self) -> bool:
        """Whether this process is the one that writes, in training on several."""
        return self._backend.is_chief()

    def is_built(self, after_a_step: bool) -> bool:
        """Whether the layers exist."""
        if after_a_step:
            return bool(self._model.built or find_layers(self._model))
        if has_call(self._model):
            return bool(self._model.built and norms_built(self._model))
        return parts_built(self._model)

    def layers(self) -> tuple[KerasLayer, ...]:
        """The built BatchNorm layers."""
        return find_layers(self._model)

    def reader(self, layers: Sequence[Any]) -> StatisticsReader:
        """A reader of these layers."""
        return self._backend.reader(layers)

    def runner(self, layers: Sequence[Any], segments: Segments) -> KerasRunner:
        """Passes over the model.

        Raises:
            NotEvaluated: the model does not allow any.
        """
        if not (self._model.built and has_call(self._model)):
            raise NotEvaluated(NOT_CALLED)
        return KerasRunner(self._backend, self._model, layers, segments, self._loss)

    def weights_mark(self) -> Array:
        """Sums of the smallest trainable variables."""
        if self._mark is None:
            trained = self._model.trainable_variables
            self._mark = self._backend.sums(sorted(trained, key=lambda v: int(np.prod(v.shape)))[:MARKED_WEIGHTS])
        return self._mark()

    def learning_rate(self) -> float | None:
        """The optimizer's, None where the model has none: a custom loop may keep it elsewhere."""
        optimizer = getattr(self._model, "optimizer", None)
        if optimizer is None:
            return None
        inner = counting_optimizer(self._model)
        schedule = getattr(inner, "_hyper", {}).get("learning_rate", getattr(inner, "_learning_rate", None))
        if is_of_keras(schedule):
            return self._rate(optimizer)
        try:
            with self._backend.undone(schedule):
                return self._rate(optimizer)
        except NotEvaluated:
            return None

    def _rate(self, optimizer: Any) -> float:
        rate = optimizer.learning_rate
        # The legacy optimizers of Keras 2 give the schedule itself.
        return float(self._backend.library.host(rate(steps_made(self._model)) if callable(rate) else rate))

    def versions(self) -> Mapping[str, str]:
        """Versions of Keras and of what it runs on."""
        return {name: importlib.metadata.version(name) for name in self._backend.packages}


def steps_made(model: Any) -> int:
    """Steps that the model's optimizer has counted; 0 where it has none, as in a model that was not compiled."""
    optimizer = counting_optimizer(model)
    # Not optimizer.iterations, which is divided under gradient accumulation. Keras 3.3 has that alone, undivided.
    # The legacy optimizers of Keras 2 have None there until the first step, and would make the variable when asked.
    count = optimizer._iterations if hasattr(optimizer, "_iterations") else getattr(optimizer, "iterations", None)
    return 0 if count is None else int(backend(model).library.host(count))


def counting_optimizer(model: Any) -> Any:
    """The optimizer that counts the steps, None where the model has none."""
    # Under mixed_float16 a wrapper scales the loss, whose own count stays 0.
    optimizer = getattr(model, "optimizer", None)
    return getattr(optimizer, "inner_optimizer", optimizer)
