"""Recover what moving statistics were chasing between two moments.

Keras updates ``m' = beta m + (1-beta) x`` with the statistic ``x`` of each batch. Two snapshots k updates apart
hold the exponentially weighted mean of the k batch statistics between them, exactly:
``(m_k - beta^k m_0) / (sum of the k weights)``. Nothing is hooked into the training step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tb_bnlens.moments.layers import TrackedLayer, gain, kept
from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.segments import Segments

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Snapshot:
    """Moving statistics of all layers at one moment, [C_total] each, float32 as the variables are.

    For ``renorm`` layers the second array holds the moving *standard deviation*, which is what is averaged.
    """

    mean: Array
    spread: Array
    replica_mean: Array | None = None
    """[replicas, C_total] where each replica keeps its own moving statistics."""
    counts: NDArray[np.int64] | None = None
    """Updates that each layer has had so far, [L], where the framework counts them (PyTorch does)."""


class WindowRecovery:
    """Constants of the layers, spread over channels, with which windows are recovered and statistics advanced."""

    def __init__(self, layers: Sequence[TrackedLayer], segments: Segments):
        self._segments = segments
        self.set_momentums([kept(t) for t in layers], [gain(t) for t in layers])
        self.renorm = segments.per_channel([t.renorm for t in layers]).astype(bool)
        self.epsilon = segments.per_channel([float(t.epsilon) for t in layers])
        self._cumulative = np.asarray([t.cumulative for t in layers], bool)

    def set_momentums(self, beta: ArrayLike, gain: ArrayLike) -> None:
        """Use these momentum values from now on: the float32 ``beta`` and ``1 - beta`` of each layer, [L]."""
        self._beta = np.asarray(beta, np.float64)
        self._gain = np.asarray(gain, np.float64)

    @property
    def beta(self) -> Array:
        """Momentum of each layer as the update uses it, [L]; for a cumulative average, that of its last update."""
        return self._beta

    def weights(self, updates: Array, counts: NDArray[np.int64] | None = None) -> tuple[Array, Array]:
        """``beta^k`` and the sum of the k weights, [L], for k updates of each layer, [L].

        Of a cumulative average n updates long, the last k have a weight of ``k/n``, and the rest is left of the start.

        Args:
            updates: k, [L].
            counts: n after them, [L], where the framework counts them.
        """
        power = self._beta**updates
        with np.errstate(all="ignore"):
            total = np.where(self._beta == 1.0, self._gain * updates, self._gain * (1 - power) / (1 - self._beta))
        if counts is not None and self._cumulative.any():
            share = np.clip(updates / np.maximum(counts, 1), 0.0, 1.0)
            power, total = np.where(self._cumulative, 1 - share, power), np.where(self._cumulative, share, total)
        return power, total

    def _follow(self, counts: NDArray[np.int64] | None) -> None:
        """Let the momentum of cumulative averages be that of their last update."""
        if counts is not None and self._cumulative.any():
            last, where = 1 / np.maximum(counts, 1), self._cumulative
            self.set_momentums(np.where(where, 1 - last, self._beta), np.where(where, last, self._gain))

    def recover(self, before: Snapshot, after: Snapshot, updates: Array) -> Moments:
        """Weighted mean of the batch means and variances between two snapshots.

        Args:
            before: first snapshot.
            after: second snapshot, ``updates`` BatchNorm updates later.
            updates: [L], updates of each layer between the two.

        Returns:
            mean and variance (clamped at 0); NaN where a layer had no update, its momentum is 1, or a statistic is not
            finite.
        """
        self._follow(after.counts)
        power, total = (self._segments.per_channel(x) for x in self.weights(updates, after.counts))
        with np.errstate(all="ignore"):
            mean = (after.mean - power * before.mean) / total
            spread = (after.spread - power * before.spread) / total
        unusable = ~(total > 0) | ~np.isfinite(mean) | ~np.isfinite(spread)
        return Moments(np.where(unusable, np.nan, mean), np.where(unusable, np.nan, self.variance(spread)))

    def variance(self, spread: Array) -> Array:
        """Variance of what is averaged: the moving variance itself, or the square of a ``renorm`` deviation."""
        with np.errstate(all="ignore"):
            return np.maximum(np.where(self.renorm, np.square(spread) - self.epsilon, spread), 0.0)

    def moving_variance(self, snapshot: Snapshot) -> Array:
        """The moving variance that inference uses; negative values are kept, since they are a fault to report."""
        return np.where(self.renorm, self.variance(snapshot.spread), snapshot.spread)

    def moving(self, snapshot: Snapshot) -> Moments:
        """What inference normalizes with."""
        return Moments(snapshot.mean, self.moving_variance(snapshot))
