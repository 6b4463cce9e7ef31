"""A pass over a model of Keras 2 that writes nothing.

Keras 2 has no stateless scope: its layers hold variables of TensorFlow. While a pass is traced, these attributes of the
objects are replaced:

- The statistics of a BatchNorm layer, by tensors. The two methods that assign statistics put new tensors there.
- ``update_state`` of metrics, by a function that does nothing.
- The generator of a random layer, by a copy: each trace takes seeds from it.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from tb_bnlens.frameworks.keras2.library import LIBRARY
from tb_bnlens.frameworks.keras3.backend import Statistics
from tb_bnlens.frameworks.keras3.layers import KerasLayer

STATISTICS = ("moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_stddev")
SET_BY_FIRST_CALL = ("_saved_model_inputs_spec", "_saved_model_arg_spec", "_called")
"""Attributes that the first call of a layer sets."""
WITHOUT_VARIABLE = "legacy_stateful"
"""The kind of a random generator that keeps its state in the ops."""


class Replaced:
    """Attributes of objects with other values, until they are put back. No ``__setattr__`` is called."""

    def __init__(self) -> None:
        self._before: list[tuple[dict[str, Any], str, Any]] = []

    def set(self, thing: Any, name: str, value: Any) -> None:
        """Give an attribute another value."""
        own = vars(thing)
        self._before.append((own, name, own.get(name, self)))
        own[name] = value

    def put_back(self) -> None:
        """Give all of them their first values again."""
        for own, name, value in reversed(self._before):
            if value is self:
                own.pop(name, None)
            else:
                own[name] = value


class TensorScope:
    """Statistics of BatchNorm layers as tensors; see ``keras3.backend.Scope``."""

    def put(self, layer: KerasLayer, mean: Any, variance: Any) -> None:
        """Have a layer read these from now on."""
        own = vars(layer.layer)
        own["moving_mean"], own["moving_variance"] = mean, variance

    def averages(self, layer: KerasLayer) -> tuple[Any, Any]:
        """The moving averages as the layer has assigned them."""
        return layer.layer.moving_mean, layer.averaged


@contextlib.contextmanager
def tensor_scope(model: Any, statistics: Statistics) -> Iterator[TensorScope]:
    """Have a model write nothing in the block.

    Args:
        model: a built model.
        statistics: what these layers read in place of their variables.
    """
    replaced, scope = Replaced(), TensorScope()
    layers = list(model._flatten_layers())
    # Layers keep the losses of their last call; training must find its own there, and a pass only its own.
    losses = [(layer._thread_local, getattr(layer._thread_local, "_eager_losses", [])) for layer in layers]
    try:
        for local, _ in losses:
            local._eager_losses = []
        for layer in layers:
            _replace_side_effects(replaced, layer)
        for metric in model.metrics:
            _silence(replaced, metric)
        for tracked, mean, variance in statistics:
            scope.put(tracked, mean, variance)
        yield scope
    finally:
        replaced.put_back()
        for local, kept in losses:
            local._eager_losses = kept


def _replace_side_effects(replaced: Replaced, layer: Any) -> None:
    own = vars(layer)
    # Losses from when a functional model was made.
    replaced.set(layer, "_losses", [])
    for name in SET_BY_FIRST_CALL:
        if name in own:
            replaced.set(layer, name, own[name])
    if isinstance(layer, LIBRARY.keras.metrics.Metric):
        _silence(replaced, layer)
    if isinstance(layer, LIBRARY.normalization) and layer.built:
        for name in STATISTICS:
            if name in own:
                replaced.set(layer, name, tf.convert_to_tensor(own[name]))
        replaced.set(layer, "_assign_moving_average", _averaging(layer))
        replaced.set(layer, "_assign_new_value", _assigning(layer))
    generator = own.get("_random_generator")
    if generator is not None:
        other = copy.copy(generator)
        # With a seed it gives each random op of the pass another one.
        vars(other).update(_rng_type=WITHOUT_VARIABLE, _generator=None, _built=True, _seed=1)
        replaced.set(layer, "_random_generator", other)


def _silence(replaced: Replaced, metric: Any) -> None:
    replaced.set(metric, "update_state", lambda *_args, **_kwargs: None)


def _averaging(layer: Any) -> Callable[..., Any]:
    def assign_moving_average(variable: Any, value: Any, momentum: Any, inputs_size: Any) -> Any:
        decay = tf.cast(tf.convert_to_tensor(1.0 - momentum), variable.dtype)
        delta = (variable - tf.cast(value, variable.dtype)) * decay
        if inputs_size is not None:
            delta = tf.where(inputs_size > 0, delta, tf.zeros_like(delta))
        return _assign(layer, variable, variable - delta)

    return assign_moving_average


def _assigning(layer: Any) -> Callable[..., Any]:
    return lambda variable, value: _assign(layer, variable, tf.cast(value, variable.dtype))


def _assign(layer: Any, before: Any, value: Any) -> Any:
    own = vars(layer)
    (name,) = (name for name in STATISTICS if own.get(name) is before)
    own[name] = value
    return value
