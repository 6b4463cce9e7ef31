"""Find the BatchNorm layers of an nnx module, and read their statistics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx

from tb_bnlens.capture.passes import Array
from tb_bnlens.history import Layer
from tb_bnlens.moments.layers import described, without_statistics
from tb_bnlens.moments.recovery import Snapshot

MARKED = 8
"""Parameters that tell whether weights have moved, the smallest ones: a step of an optimizer moves most of them."""


@dataclass(frozen=True, eq=False)
class FlaxLayer:
    """An ``nnx.BatchNorm``; see ``moments.layers.TrackedLayer``."""

    module: Any
    path: tuple[Any, ...]
    """Attributes and indices that lead to it; empty for the model itself."""

    renorm = False
    cumulative = False
    looped = False
    calls = None
    trainable = True
    """Nothing in a layer says so: ``nnx.Optimizer(..., wrt=...)`` has what is trained."""

    @property
    def name(self) -> str:
        """Its path, as in ``blocks.0.bn``; the name of its class where it is the model itself."""
        return ".".join(map(str, self.path)) or type(self.module).__name__

    @property
    def momentum(self) -> float:
        """Share that the next update keeps."""
        return float(self.module.momentum)

    @property
    def channels(self) -> int:
        """Length of the statistics."""
        return int(self.module.mean.shape[0])

    @property
    def epsilon(self) -> float:
        """What is added to the variance."""
        return float(self.module.epsilon)

    @property
    def coarse(self) -> bool:
        """Statistics of two or three digits, which float32's seven cannot be recovered from."""
        return bool(self.module.mean.dtype.itemsize < 4)

    @property
    def lacks_statistics(self) -> bool:
        """Whether it has been trained and has the statistics of a new layer now."""
        held = self.module.bias, self.module.mean, self.module.var
        return without_statistics(lambda variable: np.asarray(variable[...]), *held)

    def describe(self, index: int, order: int = -1, calls: int = 1) -> Layer:
        """The manifest's entry for this layer."""
        reach = (f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]" for key in self.path)
        access, kind = "model" + "".join(reach), type(self.module).__name__
        return described(self, index, order, calls, axis=-1, kind=kind, access=access)


def find_layers(model: Any) -> tuple[FlaxLayer, ...]:
    """The BatchNorm layers with statistics of one dimension, each once, in the order of ``nnx.iter_modules``.

    Layers that ``nnx.vmap`` has made a stack of are left out: their statistics are of several layers.
    """
    found = ((path, module) for path, module in nnx.iter_modules(model) if isinstance(module, nnx.BatchNorm))
    return tuple(FlaxLayer(module, path) for path, module in found if len(module.mean.shape) == 1)


MODES = ("use_running_average", "deterministic")
"""Attributes that ``train()`` and ``eval()`` of a module set."""
Modes = list[tuple[Any, str, bool]]


def modes_of(model: Any) -> Modes:
    """Module, name and value of each attribute that makes a mode."""
    return [(m, name, getattr(m, name)) for _, m in nnx.iter_modules(model) for name in MODES if hasattr(m, name)]


@contextlib.contextmanager
def in_modes(given: Modes) -> Iterator[None]:
    """Let modules be in these modes within the block."""
    before = [(module, name, getattr(module, name)) for module, name, _ in given]
    try:
        for module, name, value in given:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def mark(model: Any) -> Array:
    """A few numbers that change when weights do: sums of the smallest parameters."""
    small = sorted(jax.tree.leaves(nnx.state(model, nnx.Param)), key=lambda leaf: int(leaf.size))[:MARKED]
    return np.asarray([np.sum(np.asarray(leaf), dtype=np.float64) for leaf in small])


class StatisticsReader:
    """Reads the statistics of all layers."""

    def __init__(self, layers: Sequence[FlaxLayer]):
        self._modules = [layer.module for layer in layers]

    def read(self) -> Snapshot:
        """The statistics now, as copies: a step may be given the memory of the arrays."""
        means, variances = jax.device_get(([m.mean[...] for m in self._modules], [m.var[...] for m in self._modules]))
        return Snapshot(np.concatenate(means, dtype=np.float32), np.concatenate(variances, dtype=np.float32))
