"""What a run's record is once read: frozen dataclasses over NumPy arrays, the input of analysis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.metadata import CHANNEL_ROWS, FORMAT, KERAS, LAYER_INDEX, LOSS_INDEX, PROBES

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """One BatchNorm layer as the manifest describes it."""

    index: int
    """Position in the packed records; the identity of the layer, since paths can repeat."""
    name: str
    """Unique path, e.g. ``"backbone/block_1_expand_BN"``."""
    channels: int
    momentum: float
    """Share that an update keeps, whatever the framework: PyTorch's is 1 minus this."""
    epsilon: float
    axis: int = -1
    kind: str = "BatchNormalization"
    """Class name, with ``"renorm"``, ``"synchronized"``, ``"time distributed"`` and ``"cumulative"`` in brackets where
    they apply."""
    trainable: bool = True
    """In PyTorch: whether its weights are trained. Statistics move without that."""
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
    """One of ``metadata.EventKind``; a later version may write others."""
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
    """Optimizer steps of the whole loop, None where it is not known."""
    batch_size: int | None = None
    replicas: int = 1
    tolerance: float = 0.1
    """Relative error of the moving statistics that counts as converged."""
    versions: Mapping[str, str] = field(default_factory=dict)
    ignore: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Id of a cause -> layer name patterns (``fnmatch``) that the user silenced."""
    notes: tuple[str, ...] = ()
    """Sentences on what could not be recorded, and why."""
    not_evaluated: Mapping[str, str] = field(default_factory=dict)
    """Loss kind or row name -> why it is not measured in this run."""
    events: tuple[Event, ...] = ()
    ended: str = ""
    """``"planned"``, ``"early"`` or ``"interrupted"``; empty while training runs, or where nobody could say."""
    ended_step: int | None = None
    """Steps made when it ended."""
    source: str = ""
    """``"checkpoints"`` where the record was made from saved weights; empty for one of the recorder."""
    framework: str = KERAS
    """One of ``metadata.FRAMEWORKS``."""
    called: str = ""
    """``"forward"`` where the user has said how the model is called; remedies have to be told, too."""
    untracked: tuple[str, ...] = ()
    """PyTorch modules with ``track_running_stats=False``; they have no statistics, and are not among ``layers``."""
    unreached: tuple[str, ...] = ()
    """What else normalizes by the batch in eval mode in PyTorch: modules in plain lists, or made in forward."""
    ranks: tuple[tuple[float, float], ...] = ()
    """Of each rank of a distributed PyTorch training: loss of its batches with the statistics of rank 0, which are
    saved, and with batch statistics."""


@dataclass(frozen=True)
class PassResult:
    """One pass over batches: the model in one mode, with one set of moving statistics, at fixed weights."""

    losses: Doubles
    """Loss of each batch, [B]."""
    sizes: NDArray[np.int64]
    """Samples in each batch, [B]."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The compiled metrics over all batches, by the names that Keras shows."""

    @property
    def mean(self) -> float:
        """Mean loss of a sample."""
        return float(np.average(self.losses, weights=self.sizes)) if len(self.losses) else float("nan")


def trained(passes: Mapping[str, PassResult]) -> str:
    """The pass with batch statistics in the layers that should use them in training, without dropout."""
    return "batch_as_trained" if "batch_as_trained" in passes else "batch"


@dataclass(frozen=True)
class Evidence:
    """What each cause's intervention gives, measured on one set of batches at one moment.

    Every pass is made at the same weights, and none of them writes to the model. See ``metadata.PASSES``.
    """

    step: int
    moment: str
    """One of ``metadata.Moment``."""
    batch_steps: NDArray[np.int64]
    """Step that was made on each batch, [B]; 0 for data that training did not meet."""
    batch_sizes: NDArray[np.int64]
    """Samples, [B]."""
    batch_phases: NDArray[np.int64]
    """The ``fit`` that each batch is from, [B]."""
    passes: Mapping[str, PassResult] = field(default_factory=dict)
    validation: Mapping[str, PassResult] = field(default_factory=dict)
    """The same on validation data."""
    samples: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Losses of single rows, summarized: pass, or ``"a-b"`` for paired differences -> ``metadata.SAMPLE_FIGURES``."""
    layers: Mapping[str, Doubles] = field(default_factory=dict)
    """Row of ``metadata.EVIDENCE_ROWS`` -> its value for each layer, [L]."""
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Group of layers, as in ``put_right:frozen`` -> their indices."""
    not_evaluated: Mapping[str, str] = field(default_factory=dict)
    """Pass or other part -> why it was not measured."""
    seconds: float = float("nan")
    """What the measurement took, tracing left out."""
    earlier: Mapping[str, PassResult] = field(default_factory=dict)
    """Where the data changed in the course of training, ``inference`` and ``batch`` (as training has it) on batches
    from before that. All else is of batches since then."""

    def mean(self, name: str) -> float:
        """Mean loss of a sample in a pass; NaN where it was not made."""
        return self.passes[name].mean if name in self.passes else float("nan")

    def difference(self, name: str, other: str) -> tuple[float, float]:
        """Mean of the paired difference of two passes' losses over batches, and its standard error.

        NaN where either pass is missing or they were made on different batches; the error is NaN for one batch.
        """
        a, b = self.passes.get(name), self.passes.get(other)
        if a is None or b is None or not np.array_equal(a.sizes, b.sizes) or not len(a.sizes):
            return float("nan"), float("nan")
        weights = a.sizes / a.sizes.sum()
        apart = a.losses - b.losses
        mean = float(weights @ apart)
        count = len(apart)
        if count < 2:
            return mean, float("nan")
        # Of a weighted mean of independent batches.
        variance = float(np.square(weights) @ np.square(apart - mean)) * count / (count - 1)
        return mean, float(np.sqrt(variance))


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
    evidence: tuple[Evidence, ...] = ()
    """Measurements on many batches, by step."""

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
    def last_record(self) -> float | None:
        """Wall time of the last record or probe, seconds since 1970; None where there is none, or it is no time."""
        times = [float(t[-1]) for t in (self.wall_times, self.loss_wall_times) if len(t)]
        return max(times) if times and all(map(math.isfinite, times)) and max(times) > 0 else None

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
