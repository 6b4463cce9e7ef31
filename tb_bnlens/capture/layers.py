"""Find the BatchNorm layers of a model and name them uniquely by path."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tb_bnlens.history import Layer


@dataclass(frozen=True)
class TrackedLayer:
    """A built BatchNorm layer of the model, with the constants that its update really uses."""

    layer: Any
    name: str
    access: str
    """Python expression that reaches the layer from ``model``; empty where none is known."""
    channels: int
    looped: bool = False
    """Part of a recurrent cell, which is called once a time step."""

    @property
    def renorm(self) -> bool:
        """Batch Renormalization: the moving average is of the standard deviation."""
        return bool(getattr(self.layer, "renorm", False))

    @property
    def beta(self) -> float:
        """Momentum as the float32 that the update multiplies the moving statistic with."""
        return float(np.float32(self.layer.momentum))

    @property
    def gain(self) -> float:
        """``1 - momentum``, rounded to float32 *after* the subtraction, as Keras' update does."""
        return float(np.float32(1.0 - float(self.layer.momentum)))

    @property
    def averaged(self) -> Any:
        """The variable whose moving average is kept beside the mean: ``renorm`` averages the deviation."""
        return self.layer.moving_stddev if self.renorm else self.layer.moving_variance

    def describe(self, index: int, order: int = -1, calls: int = 1) -> Layer:
        """The manifest's entry for this layer."""
        extra = [w for w, on in (("renorm", self.renorm), ("synchronized", self.layer.synchronized)) if on]
        kind = type(self.layer).__name__ + (f" ({', '.join(extra)})" if extra else "")
        return Layer(
            index=index,
            name=self.name,
            channels=self.channels,
            momentum=float(self.layer.momentum),
            epsilon=float(self.layer.epsilon),
            axis=int(self.layer.axis),
            kind=kind,
            trainable=bool(self.layer.trainable),
            order=order,
            calls=calls,
            access=self.access,
        )


def find_layers(model: Any) -> tuple[TrackedLayer, ...]:
    """The built BatchNorm layers of a Keras model, each once, in the model's own order.

    A layer that is not built yet has no moving statistics and is left out: ask again after the first step.
    Paths repeat (two layers named ``bn`` under one parent): later ones get ``#2``, ``#3``.
    """
    found: list[tuple[Any, str, str, bool]] = []
    _walk(model, "", "model", False, found, set())
    count: Counter[str] = Counter()
    tracked = []
    for layer, path, access, looped in found:
        if getattr(layer, "moving_mean", None) is None:
            continue
        count[path] += 1
        name = path if count[path] == 1 else f"{path}#{count[path]}"
        tracked.append(TrackedLayer(layer, name, access, int(layer.moving_mean.shape[0]), looped))
    return tuple(tracked)


def _walk(
    parent: Any, path: str, access: str, looped: bool, found: list[tuple[Any, str, str, bool]], seen: set[int]
) -> None:
    looped = looped or isinstance(parent, keras.layers.RNN)
    for child in parent._flatten_layers(include_self=False, recursive=False):
        if id(child) in seen:
            continue
        seen.add(id(child))
        child_path = f"{path}/{child.name}" if path else child.name
        child_access = _access(parent, child, access)
        if isinstance(child, keras.layers.BatchNormalization):
            found.append((child, child_path, child_access, looped))
        _walk(child, child_path, child_access, looped, found, seen)


def _access(parent: Any, child: Any, access: str) -> str:
    if not access:
        return ""
    if isinstance(parent, (keras.Sequential, keras.models.Model)) and hasattr(parent, "get_layer"):
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
