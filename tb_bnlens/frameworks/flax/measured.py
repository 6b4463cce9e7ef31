"""Watch the BatchNorm calls of a module, on a copy of it that nobody else has.

A copy of a layer gets a subclass of its class, which asks the pass that runs how to normalize. With momentum 0 a call
in training mode leaves the statistics of its batch in ``mean`` and ``var``, just as flax computes them.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp

from tb_bnlens.frameworks.flax.layers import FlaxLayer

Statistics = tuple[Any, Any]


@dataclass
class Calls:
    """The BatchNorm calls of one pass."""

    order: list[int] = field(default_factory=list)
    """Layer index of each call that used the statistics of its batch."""
    moments: list[Statistics] = field(default_factory=list)
    """Mean and variance of each of these."""
    by_batch: dict[int, bool] = field(default_factory=dict)
    """Layer index -> whether one of its calls uses the statistics of the batch."""
    given: Sequence[Any] | None = None
    """Layer index -> (mean, variance, mask), [C] each: the channels that use these statistics and not the batch's."""
    as_called: bool = True
    """Every call in the mode that it asks for; otherwise on the batch, whatever it asks for."""

    def __call__(self, layer: Any, call: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        """One call of a layer."""
        index = layer.lens_index
        asks = kwargs.get("use_running_average", args[1] if len(args) > 1 else None)
        at_inference = layer.use_running_average if asks is None else asks
        self.by_batch[index] = self.by_batch.get(index, False) or not at_inference

        def run(running: bool) -> Any:
            layer.use_running_average = running
            if len(args) > 1:
                args[1] = running
            elif "use_running_average" in kwargs:
                kwargs["use_running_average"] = running
            return call(*args, **kwargs)

        if self.as_called and at_inference:
            return run(True)
        before, momentum, mode = (layer.mean[...], layer.var[...]), layer.momentum, layer.use_running_average
        # Zero times what is not a number would not be zero.
        _put(layer, tuple(jnp.zeros_like(part) for part in before))
        layer.momentum = 0.0
        result = run(False)
        own = layer.mean[...], layer.var[...]
        layer.momentum = momentum
        self.order.append(index)
        self.moments.append(own)
        if self.given is not None:
            mean, variance, mask = self.given[index]
            _put(layer, (jnp.where(mask, mean, own[0]), jnp.where(mask, variance, own[1])))
            result = run(True)
        layer.use_running_average = mode
        _put(layer, tuple(momentum * b + (1 - momentum) * o for b, o in zip(before, own, strict=True)))
        return result


CURRENT: contextvars.ContextVar[Calls] = contextvars.ContextVar("the pass that runs")


def watch(layers: Sequence[FlaxLayer]) -> None:
    """Let calls of these layers, those of a copy, go through ``CURRENT``."""
    for index, layer in enumerate(layers):
        layer.module.__class__ = _watched(type(layer.module))
        layer.module.lens_index = index
        # Outside of pmap and shard_map there is no such axis, and a whole batch has the statistics of all its parts.
        layer.module.axis_name = None


_WATCHED: dict[Any, Any] = {}
"""Class of a layer -> its subclass."""


def _watched(base: Any) -> Any:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return CURRENT.get()(self, functools.partial(base.__call__, self), list(args), kwargs)

    if base not in _WATCHED:
        _WATCHED[base] = type(base.__name__, (base,), {"__call__": call})
    return _WATCHED[base]


def _put(layer: Any, statistics: Sequence[Any]) -> None:
    layer.mean[...], layer.var[...] = statistics
