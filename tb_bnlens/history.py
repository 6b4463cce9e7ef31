"""What a run's record is once read: frozen dataclasses over NumPy arrays, the input of analysis and rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.metadata import CHANNEL_ROWS, FORMAT, LAYER_INDEX, LOSS_INDEX, PROBES

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """One BatchNorm layer as the manifest describes it."""

    index: int
    """Position in the packed records; the identity of the layer, since paths can repeat."""
    name: str
    """Unique path, e.g. ``"backbone/block_1_expand_BN"``."""
    channels: int
    momentum: float
    epsilon: float
    axis: int = -1
    kind: str = "BatchNormalization"
    """Class name, with ``"renorm"`` or ``"synchronized"`` in brackets where it applies."""
    trainable: bool = True
    order: int = -1
    """Position in the order of execution, -1 where it is not known."""
    calls: int = 1
    """Calls of the layer in one training step."""
    access: str = ""
    """Python expression that reaches the layer from ``model``, e.g. ``model.layers[3].get_layer("bn")``."""


@dataclass(frozen=True)
class Event:
    """Something that happened to the run at a step, e.g. a momentum change, a recompile, a restart."""

    step: int
    kind: str
    """One of ``start restart fit recompile freeze unfreeze momentum averaged outside replaced``."""
    text: str
    layers: tuple[int, ...] = ()
    amounts: tuple[float, ...] = ()
    """For ``outside`` and ``replaced``: how far the statistics of each of ``layers`` moved, in standard deviations."""


@dataclass(frozen=True)
class Manifest:
    """What the recorder says about the run as a whole."""

    layers: tuple[Layer, ...]
    format: int = FORMAT
    planned_steps: int | None = None
    """Optimizer steps that the loop was asked for in all, None where it is not known."""
    batch_size: int | None = None
    replicas: int = 1
    tolerance: float = 0.1
    """Relative error of the moving statistics that counts as converged."""
    versions: Mapping[str, str] = field(default_factory=dict)
    ignore: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Rule id -> layer name patterns (``fnmatch``) that the user silenced."""
    notes: tuple[str, ...] = ()
    """Sentences on what could not be recorded, and why."""
    not_evaluated: Mapping[str, str] = field(default_factory=dict)
    """Loss kind or row name -> why it is not measured in this run."""
    events: tuple[Event, ...] = ()
    ended: str = ""
    """``"planned"``, ``"early"`` or ``"interrupted"``; empty while training runs, or where nobody could say."""
    ended_step: int | None = None
    """Steps made when it ended."""


@dataclass(frozen=True)
class History:
    """A run's record.

    ``layers`` is [T, L, K] and ``losses`` [P, D, M], float32, NaN where not measured; the axes are records,
    layers, ``metadata.LAYER_ROWS`` and probes in time, ``metadata.PROBES``, ``metadata.LOSS_ROWS``.
    """

    run: str
    manifest: Manifest
    steps: NDArray[np.int64]
    wall_times: NDArray[np.float64]
    layers: Floats
    loss_steps: NDArray[np.int64]
    loss_wall_times: NDArray[np.float64]
    losses: Floats
    problems: tuple[str, ...] = ()
    """Sentences on what the reader could not read or had to leave out."""

    def row(self, name: str) -> Floats:
        """One named value of every record and layer, [T, L]."""
        return np.asarray(self.layers[:, :, LAYER_INDEX[name]])

    def last(self, name: str) -> Floats:
        """One named value of every layer in the last record, [L]; NaN where there is no record."""
        if not len(self.steps):
            return np.full(len(self.manifest.layers), np.nan, np.float32)
        return np.asarray(self.row(name)[-1])

    def loss(self, name: str, probe: str = "train") -> Floats:
        """One named loss (or probe figure) over the probes, [P]."""
        return np.asarray(self.losses[:, PROBES.index(probe), LOSS_INDEX[name]])

    @property
    def last_step(self) -> int | None:
        """The greatest step of the record, None where it is empty."""
        steps = [int(s[-1]) for s in (self.steps, self.loss_steps) if len(s)]
        return max(steps) if steps else None


@dataclass(frozen=True)
class Channels:
    """Per-channel snapshots of one layer: ``values`` is [S, 4, C] in the order of ``CHANNEL_ROWS``."""

    steps: NDArray[np.int64]
    values: Floats

    def row(self, name: str) -> Floats:
        """One named statistic, [S, C]."""
        return self.values[:, CHANNEL_ROWS.index(name)]
