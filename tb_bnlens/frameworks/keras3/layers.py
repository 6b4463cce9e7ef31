"""Find the BatchNorm layers of a model and name them uniquely by path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tb_bnlens.frameworks.keras3.backend import backend
from tb_bnlens.frameworks.keras3.library import Library
from tb_bnlens.history import Layer
from tb_bnlens.metadata import TIME_DISTRIBUTED
from tb_bnlens.moments.layers import described, without_statistics


@dataclass(frozen=True)
class KerasLayer:
    """A built BatchNorm layer of a Keras model; see ``moments.layers.TrackedLayer``."""

    layer: Any
    name: str
    access: str
    """Python expression that reaches the layer from ``model``; empty where none is known."""
    channels: int
    looped: bool = False
    """Part of a recurrent cell, which is called once a time step."""
    over_time: bool = False
    """Inside of a ``TimeDistributed``, which calls it once a time step."""
    cumulative = False
    calls: int | None = None
    """Calls in a forward pass as the graph of a functional model has them; None inside a ``call`` of the user's."""

    @property
    def renorm(self) -> bool:
        """Batch Renormalization: the moving average is of the standard deviation."""
        return bool(getattr(self.layer, "renorm", False))

    @property
    def momentum(self) -> float:
        """The layer's attribute."""
        return float(self.layer.momentum)

    @property
    def epsilon(self) -> float:
        """The layer's attribute."""
        return float(self.layer.epsilon)

    @property
    def trainable(self) -> bool:
        """The layer's attribute, which stops the statistics too."""
        return bool(self.layer.trainable)

    @property
    def coarse(self) -> bool:
        """Moving statistics of two or three digits, which float32's seven cannot be recovered from."""
        return str(self.layer.moving_mean.dtype) in ("bfloat16", "float16")

    @property
    def lacks_statistics(self) -> bool:
        """Whether it has been trained and has the statistics of a new layer now."""
        held = getattr(self.layer, "beta", None), self.layer.moving_mean, self.averaged
        return without_statistics(backend(self.layer).library.host, *held)

    @property
    def averaged(self) -> Any:
        """The variable whose moving average is kept beside the mean: ``renorm`` averages the deviation."""
        return self.layer.moving_stddev if self.renorm else self.layer.moving_variance

    def describe(self, index: int, order: int = -1, calls: int = 1) -> Layer:
        """The manifest's entry for this layer."""
        words = (
            ("renorm", self.renorm),
            ("synchronized", self.layer.synchronized),
            (TIME_DISTRIBUTED, self.over_time),
        )
        extra = [word for word, on in words if on]
        kind = type(self.layer).__name__ + (f" ({', '.join(extra)})" if extra else "")
        axis = int(np.ravel(self.layer.axis)[0])
        return described(self, index, order, calls, axis=axis, kind=kind, access=self.access)


def find_layers(model: Any) -> tuple[KerasLayer, ...]:
    """The built BatchNorm layers of a Keras model, each once, in the model's own order.

    A layer that is not built yet has no moving statistics and is left out: ask again after the first step.
    Paths repeat (two layers named ``bn`` under one parent): later ones get ``#2``, ``#3``.
    """
    count: Counter[str] = Counter()
    tracked = []
    for found in _walk(_Place(model, "", "model", False, False, 1), set(), backend(model).library):
        statistics = getattr(found.layer, "moving_mean", None)
        # Keras 2 has layers with several axes or virtual batches, whose statistics are no vector.
        if statistics is None or len(statistics.shape) != 1:
            continue
        count[found.path] += 1
        name = found.path if count[found.path] == 1 else f"{found.path}#{count[found.path]}"
        channels = int(statistics.shape[0])
        tracked.append(
            KerasLayer(found.layer, name, found.access, channels, found.looped, found.over_time, found.calls)
        )
    return tuple(tracked)


def has_call(model: Any) -> bool:
    """Whether the model defines ``call``. Most GANs do not: their ``train_step`` calls the sub-models."""
    keras = backend(model).library.keras
    return type(model).call not in (keras.Model.call, keras.layers.Layer.call)


def has_own_step(model: Any) -> bool:
    """Whether the model defines ``train_step``: what it minimizes, and by which optimizers, is up to that."""
    return type(model).train_step is not backend(model).library.keras.Model.train_step


def parts_built(model: Any) -> bool:
    """Whether all layers in the model are built."""
    keras = backend(model).library.keras
    parts = model._flatten_layers(include_self=False)
    return all(part.built for part in parts if not isinstance(part, keras.metrics.Metric))


def norms_built(model: Any) -> bool:
    """Whether all BatchNorm layers in the model are built. ``build`` marks a model of the user's own as built without
    building its parts.
    """
    library = backend(model).library
    found = _walk(_Place(model, "", "", False, False, None), set(), library)
    return all(place.layer.built for place in found)


@dataclass(frozen=True)
class _Place:
    """A layer in the model, with what ``KerasLayer`` says of it."""

    layer: Any
    path: str
    access: str
    looped: bool
    over_time: bool
    calls: int | None


def _walk(place: _Place, seen: set[int], library: Library) -> Iterator[_Place]:
    parent = place.layer
    looped = place.looped or isinstance(parent, library.keras.layers.RNN)
    over_time = place.over_time or isinstance(parent, library.keras.layers.TimeDistributed)
    for child in parent._flatten_layers(include_self=False, recursive=False):
        if id(child) in seen:
            continue
        seen.add(id(child))
        path = f"{place.path}/{child.name}" if place.path else child.name
        access, calls = _access(parent, child, place.access), _calls(place, child, library)
        below = _Place(child, path, access, looped, over_time, calls)
        if isinstance(child, library.normalization):
            yield below
        yield from _walk(below, seen, library)


def _calls(place: _Place, child: Any, library: Library) -> int | None:
    if place.calls is None:
        return None
    if isinstance(place.layer, library.keras.Sequential):
        return place.calls
    nodes = getattr(place.layer, "_nodes_by_depth", None)
    if nodes is None:
        return None
    # A node of Keras 2 has a layer where one of Keras 3 has an operation.
    called = [getattr(node, "operation", getattr(node, "layer", None)) for level in nodes.values() for node in level]
    return place.calls * sum(layer is child for layer in called)


def _access(parent: Any, child: Any, access: str) -> str:
    if not access:
        return ""
    if hasattr(parent, "get_layer"):
        try:
            if parent.get_layer(child.name) is child:
                return f"{access}.get_layer({child.name!r})"
        except ValueError:
            pass
    for name, value in vars(parent).items():
        if name.startswith("_"):
            continue
        if value is child:
            return f"{access}.{name}"
        if isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                if item is child:
                    return f"{access}.{name}[{i}]"
        if isinstance(value, dict):
            for key, item in value.items():
                if item is child:
                    return f"{access}.{name}[{key!r}]"
    return ""
