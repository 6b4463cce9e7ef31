"""What a training step makes of the moving statistics, against what the batch that the lens saw would make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.segments import Segments

Array = NDArray[np.floating[Any]]

TELLING = 1e-5
"""A step that moves the statistics by less than this many standard deviations drowns in float32 rounding."""
STRAIGHT = 0.98
"""A step toward the seen batch alone has a squared cosine of 1 with it, but for float32 rounding."""
MOVED = 3.0
"""What other data did to a step is told where it is more than this many times what the weights' own step does to the
statistics of the same batch."""
MEMORY = 8
"""Steps over which ``explained`` is averaged."""


class Updates:
    """Compares real steps of the moving statistics with expected ones, layer by layer."""

    def __init__(self, segments: Segments):
        self._segments = segments
        self.explained = np.full(len(segments), np.nan)
        """Squared cosine of real and expected steps, mean of the last few, [L]: 1 where the seen batch is all."""

    def add(
        self,
        real: tuple[Array, Array],
        expected: tuple[Array, Array],
        scale: Array,
        gain: Array,
        doubtful: NDArray[np.bool_] | None = None,
    ) -> Array:
        """Take in one step.

        Args:
            real: change of mean and spread, [C_total] each.
            expected: what remains to the batch's mean and spread, likewise.
            scale: standard deviations of the channels, [C_total].
            gain: ``1 - momentum`` of the layers, [L].
            doubtful: layers where a step that the batch does not explain tells nothing, see ``moved_by_weights``, [L].

        Returns:
            Share of the way to the batch's statistics that the step went, [L]; NaN where it moved nothing, or went
            elsewhere, and so says nothing of the momentum.
        """
        total = self._segments.sum
        with np.errstate(all="ignore"):
            pairs = [(r / scale, e / scale) for r, e in zip(real, expected, strict=True)]
            product = np.sum([total(r * e) for r, e in pairs], axis=0)
            wanted = np.sum([total(np.square(e)) for _, e in pairs], axis=0)
            made = np.sum([total(np.square(r)) for r, _ in pairs], axis=0)
            telling = gain * np.sqrt(wanted / np.maximum(self._segments.sizes, 1)) > TELLING
            share = product / wanted
            telling &= np.isfinite(share)
            cosine = np.square(product) / (wanted * made)
            if doubtful is not None:
                telling &= ~doubtful | (cosine > STRAIGHT)
            new = np.where(np.isnan(self.explained), cosine, self.explained + (cosine - self.explained) / MEMORY)
            self.explained = np.where(telling & np.isfinite(cosine), new, self.explained)
        return np.where(telling & (cosine > STRAIGHT), share, np.nan)

    def moved_by_weights(self, step: Moments, now: Moments, later: Moments, scale: Array) -> NDArray[np.bool_]:
        """Layers where the weights' own movement may be all that sets a step and the seen batch apart, [L].

        Args:
            step: the batch statistics that the step was made with.
            now: those of the seen batch, at the weights after that step.
            later: those of the same batch, at the weights one step later.
            scale: standard deviations of the channels, [C_total].
        """

        def apart(a: Moments, b: Moments) -> Array:
            changes = ((a.mean - b.mean) / scale, (a.variance - b.variance) / scale)
            return np.asarray(np.sum([self._segments.sum(np.square(change)) for change in changes], axis=0))

        with np.errstate(all="ignore"):
            return np.asarray(apart(now, step) <= MOVED**2 * apart(later, now))
