"""The statistics of some data at the present weights, layer by layer, in any framework."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.passes import Outcome, Runner, moments_of
from tb_bnlens.moments.layers import TrackedLayer
from tb_bnlens.moments.moments import Mask, Moments
from tb_bnlens.moments.segments import Segments
from tb_bnlens.warning import warn_user

Array = NDArray[np.floating[Any]]

POOLS = ("batches", "samples")
NOT_CALLED = "the model does not call it"
FEW_SAMPLES = 100
"""With fewer samples, the mean of a channel is uncertain by more than a tenth of its standard deviation."""


class Recalibration:
    """Result of ``recalibrate``, with undo.

    As a context manager it undoes the change at the end of the block, unless ``keep()`` was called. Otherwise the
    change stays until ``undo()``.
    """

    def __init__(self, layers: Sequence[str], skipped: Mapping[str, str], batches: int, samples: int):
        self.layers = tuple(layers)
        """Names of the layers whose moving statistics were replaced."""
        self.skipped = dict(skipped)
        """Name -> why the layer kept its moving statistics."""
        self.batches = batches
        self.samples = samples
        self._undo: list[Callable[[], None]] = []
        self._kept = False

    def undo(self) -> None:
        """Restore the old moving statistics, even if they have changed since. Safe to call twice."""
        for restore in self._undo:
            restore()
        self._undo = []

    def keep(self) -> None:
        """Do not undo at the end of the ``with`` block."""
        self._kept = True

    def on_undo(self, restore: Callable[[], None]) -> None:
        """Have this called by ``undo``; for what changes the model."""
        self._undo.append(restore)

    def __enter__(self) -> Recalibration:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            self.undo()

    def __repr__(self) -> str:
        return (
            f"Recalibration({len(self.layers)} layers, {len(self.skipped)} skipped, "
            f"{self.batches} batches, {self.samples} samples)"
        )


def require_arguments(batches: int, pool: str) -> None:
    """Refuse arguments of ``recalibrate`` that are out of range.

    Raises:
        ValueError: the message says what is expected.
    """
    if pool not in POOLS:
        raise ValueError(f"pool is {pool!r}; expected one of {POOLS}")
    if batches < 1:
        raise ValueError(f"batches is {batches!r}; expected 1 or more")


@dataclass(frozen=True)
class Measured:
    """The statistics of some data."""

    moments: Moments
    """Of all layers, [C_total]."""
    chosen: tuple[int, ...]
    """Layers that are to get them."""
    skipped: Mapping[str, str]
    """Name of a layer -> why it keeps its own."""
    batches: int
    samples: int


def measure(
    runner: Runner,
    layers: Sequence[TrackedLayer],
    moving: Moments,
    data: Iterable[tuple[Any, int]],
    frozen: bool,
    pool: str,
    skip_non_finite: bool = False,
) -> Measured:
    """Run every batch through the model once, each layer normalizing by it.

    Args:
        runner: the model.
        layers: its BatchNorm layers.
        moving: their moving statistics, [C_total].
        data: batches with their numbers of samples.
        frozen: measure layers that training does not update, too.
        pool: one of ``POOLS``.
        skip_non_finite: leave out batches that give statistics that are not finite.

    Raises:
        ValueError: no layer is updated in training, there is no sample, or statistics are not finite.
        NotEvaluated: the model cannot be run.
    """
    segments = Segments([t.channels for t in layers])
    skipped: dict[str, str] = {}
    on_moving = np.zeros(len(segments.layer), bool)
    total = count = left_out = 0
    mean = second = within = np.zeros(len(segments.layer))
    for batch, samples in data:
        if count + left_out == 0:
            skipped = {} if frozen else _left_alone(runner, layers, batch)
            on_moving = segments.per_channel([t.name in skipped for t in layers]).astype(bool)
            if on_moving.all():
                raise ValueError(
                    "No BatchNorm layer of the model is updated in training; pass frozen=True to recalibrate them "
                    "all the same"
                )
        passed = runner.batch(batch, moving, on_moving)
        seen = moments_of(passed)
        bad = _not_finite(seen, runner.order, layers, segments, on_moving)
        if bad and skip_non_finite:
            left_out += 1
            continue
        if bad:
            raise ValueError(
                f"Batch {count} of data gives {bad}; nothing was changed. skip_non_finite=True leaves such batches out"
            )
        count, total = count + 1, total + samples
        rate = samples / total
        mean = mean + rate * (seen.mean - mean)
        within = within + rate * (seen.variance - within)
        second = second + rate * (_second_moment(passed, seen, segments) - second)
    if left_out:
        if not total:
            raise ValueError(f"Each batch of data gives statistics that are not finite; the last one gives {bad}")
        warn_user(f"{left_out} of {left_out + count} batches of data gave statistics that are not finite: left out")
    if not total:
        raise ValueError("data gave no samples to recalibrate on; expected batches of training data")
    if total < FEW_SAMPLES:
        # All that there is of a small data set still serves better than statistics of other weights.
        warn_user(
            f"data gave {total} samples in {count} {'batch' if count == 1 else 'batches'} to recalibrate on; "
            f"{FEW_SAMPLES} are few, and 1,000 to 10,000 give good statistics"
        )
    variance = within if pool == "batches" else np.maximum(second - np.square(mean), 0.0)
    called = set(runner.order)
    skipped |= {t.name: NOT_CALLED for i, t in enumerate(layers) if i not in called}
    chosen = tuple(i for i, t in enumerate(layers) if t.name not in skipped)
    return Measured(Moments(mean, variance), chosen, skipped, count, total)


def replaced(
    measured: Measured,
    layers: Sequence[TrackedLayer],
    write: Callable[[Recalibration, Any, Array, Array], None],
    left_alone: str = "",
) -> Recalibration:
    """Give layers the statistics that were measured for them.

    Args:
        measured: of all layers.
        layers: the layers.
        write: gives one layer a mean and a variance, [C] each, and has ``undo`` take them back.
        left_alone: why a layer that training does not update keeps its own, in the words of the framework.
    """
    skipped = {name: left_alone if left_alone and why != NOT_CALLED else why for name, why in measured.skipped.items()}
    names = [layers[i].name for i in measured.chosen]
    result = Recalibration(names, skipped, measured.batches, measured.samples)
    segments = Segments([t.channels for t in layers])
    means, variances = segments.split(measured.moments.mean), segments.split(measured.moments.variance)
    for i in measured.chosen:
        write(result, layers[i], means[i], variances[i])
    return result


def _left_alone(runner: Runner, layers: Sequence[TrackedLayer], batch: Any) -> dict[str, str]:
    """Layers that use their moving statistics in training too, with which the rest of the network has learned."""
    runner.training(batch)
    trained = runner.trained()
    return {
        t.name: "the model calls it in inference mode" if t.trainable else "trainable=False"
        for i, t in enumerate(layers)
        if not trained[i]
    }


def _second_moment(passed: Outcome, seen: Moments, segments: Segments) -> Array:
    second = seen.variance + np.square(seen.mean)
    for index, calls in passed.calls.items():
        part = slice(segments.starts[index], segments.stops[index])
        doubles = [m.double() for m in calls]
        second[part] = np.mean([m.variance + np.square(m.mean) for m in doubles], axis=0)
    return second


def _not_finite(
    seen: Moments,
    order: Sequence[int],
    layers: Sequence[TrackedLayer],
    segments: Segments,
    on_moving: Mask,
) -> str:
    """The first layer in which a batch's statistics are not finite; empty where all are."""
    bad = segments.count(~np.isfinite(seen.mean) | ~np.isfinite(seen.variance))
    for index in dict.fromkeys(order):
        if bad[index] and not on_moving[segments.starts[index]]:
            return (
                f"layer {layers[index].name!r} statistics that are not finite in {int(bad[index])} of "
                f"{layers[index].channels} channels"
            )
    return ""
