"""What a checkpoint tells of a model's BatchNorm layers, whatever kind of file it is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LONGEST_VECTOR = 1_000_000
"""Channels of one layer. A file that claims more is not read."""
MOST_CALLS = 10_000


class BadCheckpoint(ValueError):
    """One file cannot be used; the message says what came and what was expected."""


class CannotImport(ValueError):
    """No record can be made; the message names what came, what was expected and what to do."""


@dataclass(frozen=True)
class Settings:
    """What the model's config says of a BatchNorm layer."""

    momentum: float
    epsilon: float
    trainable: bool
    axis: int
    kind: str
    synchronized: bool
    calls: int
    """Calls in one forward pass, from the nodes of a functional model; 1 where it does not say."""


@dataclass(frozen=True)
class SavedLayer:
    """The moving statistics of one BatchNorm layer in one checkpoint."""

    name: str
    """Path of layer names as ``capture.layers`` gives it, where the file holds names."""
    mean: Array
    """[C]."""
    spread: Array
    """What is averaged beside the mean, [C]: the moving variance, or the standard deviation with ``renorm``."""
    renorm: bool = False
    settings: Settings | None = None
    """None where the file holds weights and no config."""
    updates: int | None = None
    """Batches that the layer has counted itself, as PyTorch's does."""

    def renamed(self, name: str) -> SavedLayer:
        """The layer under another name."""
        return replace(self, name=name)


@dataclass(frozen=True)
class Checkpoint:
    """One readable file."""

    path: Path
    layers: tuple[SavedLayer, ...]
    iterations: int | None = None
    """The step that the contents state: the optimizer's count of steps, or a variable named for it."""
    counter: int | None = None
    """TensorFlow's count of saves, which names such as ``ckpt-3`` carry and which is no step."""
    torch: bool = False
    """Whether it is one of PyTorch."""

    @property
    def layout(self) -> tuple[tuple[str, int, bool], ...]:
        """What two checkpoints must share to be of one network: names, channels and what is averaged."""
        return tuple(sorted((layer.name, len(layer.mean), layer.renorm) for layer in self.layers))

    @property
    def configured(self) -> bool:
        """Whether every layer's momentum is known."""
        return all(layer.settings is not None for layer in self.layers)


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def uniquely_named(layers: Iterable[SavedLayer]) -> tuple[SavedLayer, ...]:
    """Paths repeat; later ones get ``#2``, ``#3``, as in a recorded run."""
    count: Counter[str] = Counter()
    named = []
    for layer in layers:
        count[layer.name] += 1
        n = count[layer.name]
        named.append(layer if n == 1 else replace(layer, name=f"{layer.name}#{n}"))
    return tuple(named)


def key_order(key: str) -> list[tuple[int, str]]:
    """Sort key by which ``batch_normalization_10`` comes after ``_9``: the numbers are the order in the model."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", key)]
