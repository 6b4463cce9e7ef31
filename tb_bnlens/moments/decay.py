"""How fast moving statistics forget, from themselves alone: whatever data, seen or not, a step feeds them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.moments.recovery import Snapshot
from tb_bnlens.moments.segments import Segments

Array = NDArray[np.floating[Any]]

LARGEST_BIAS = 0.2
"""Share of ``1 - decay`` that the bias of the regression may make up."""


class Decay:
    """Regresses the moving statistics after a step on those before it, with an intercept for each channel.

    The slope is ``momentum`` to the power of the updates in a step: the intercept takes what the batches hold. It is
    told only while the way from the start outweighs the noise of the batches. In noise alone such a regression is
    biased by 4 over the number of steps (Hurwicz 1950), which is more than ``1 - momentum`` itself. Beside a way the
    bias is smaller by the noise's share, and is taken off.
    """

    def __init__(self, segments: Segments):
        self._segments = segments
        size = int(segments.sizes.sum())
        self._count = 0
        # Of before, after, before squared, after squared, before times after; from the first snapshot, since float64
        # would cancel where a large mean moves little.
        self._sums = np.zeros((5, 2, size))
        self._origin: Array | None = None

    def add(self, before: Snapshot, after: Snapshot) -> None:
        """Take in the snapshots before and after one step."""
        a = np.stack([before.mean, before.spread]).astype(np.float64)
        b = np.stack([after.mean, after.spread]).astype(np.float64)
        if self._origin is None:
            self._origin = a
        a, b = a - self._origin, b - self._origin
        self._count += 1
        for held, new in zip(self._sums, (a, b, a * a, b * b, a * b), strict=True):
            held += new

    def observed(self, scale: Array) -> Array:
        """Factor by which a step shrinks the distance to what is averaged, [L]; NaN where that cannot be told.

        Args:
            scale: standard deviations of the channels, [C_total].
        """
        n = max(self._count, 1)
        with np.errstate(all="ignore"):
            a, b, aa, bb, ab = self._sums
            # A mean counts in standard deviations, a variance in variances.
            weight = 1 / np.stack([np.square(scale), np.square(np.square(scale))])
            spread_a, spread_b, together = (
                self._segments.sum(np.sum(weight * part, axis=0))
                for part in (aa - a * a / n, bb - b * b / n, ab - a * b / n)
            )
            slope = together / spread_a
            noise = np.maximum(spread_b - slope * together, 0)
            stationary = noise / np.maximum(1 - np.square(slope), 1e-9)
            bias = 4 / n * np.minimum(stationary / spread_a, 1)
            telling = (spread_a > 0) & (bias < LARGEST_BIAS * (1 - slope))
        return np.where(telling, slope + bias, np.nan)
