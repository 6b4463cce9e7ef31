"""A mean and a variance of each channel, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis.distance import distance

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Moments:
    """A mean and a variance of each channel, [C_total]."""

    mean: Array
    variance: Array

    def or_else(self, other: Moments) -> Moments:
        """These, and the other ones where they are NaN."""
        return self.where(~(np.isnan(self.mean) | np.isnan(self.variance)), other)

    def where(self, mask: Mask, other: Moments) -> Moments:
        """These in the channels of the mask and the other ones elsewhere."""
        return Moments(np.where(mask, self.mean, other.mean), np.where(mask, self.variance, other.variance))

    def toward(self, target: Moments, left: Array) -> Moments:
        """These on their way to a target, with this share of the way left, [C_total]."""
        return Moments(
            target.mean + left * (self.mean - target.mean), target.variance + left * (self.variance - target.variance)
        )

    def distance(self, other: Moments, epsilon: Array) -> Array:
        """2-Wasserstein distance of the normalized outputs with these and with the other ones, [C_total]."""
        return distance(self.mean, self.variance, other.mean, other.variance, epsilon)

    def are_new(self) -> Mask:
        """Channels whose statistics are exactly those of a new layer, [C_total]."""
        return np.asarray((self.mean == 0) & (self.variance == 1))

    def double(self) -> Moments:
        """The same in float64."""
        return Moments(self.mean.astype(np.float64), self.variance.astype(np.float64))

    def single(self) -> Moments:
        """The same in float32."""
        return Moments(self.mean.astype(np.float32), self.variance.astype(np.float32))
