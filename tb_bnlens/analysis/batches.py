"""Are the batches alike: the spread of their means against what samples drawn at random would give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.history import History

Array = NDArray[np.float64]

LEAST_UPDATES = 8
"""Batches behind a spread before it is judged."""
ALIKE_LIMIT = 4.0
"""``n * var(batch means) / v`` is at most 1 for samples drawn at random, whatever is correlated within a sample. Over
8 batches the estimate of one channel is below 3.3 in 999 cases of 1,000 (chi-squared, 7 degrees of freedom); a layer
reports its median channel."""
RETURNS = -0.3
"""Cosine of the lag with the lag one pool earlier under which the statistics have turned back: a drift keeps its sign
(cosine near 1), noise has none (near 0 on average)."""
RETURNS_SHARE = 0.1
"""Share of the records of the second half of the run in which they have to turn back."""


@dataclass(frozen=True)
class Batches:
    """Spread of the batch means per layer, [L], as a multiple of what samples drawn at random give."""

    neighbours: Array
    """From batches that follow each other: above 1 when they alternate."""
    overall: Array
    """From batches far apart: above 1 also when they are sorted, or when the weights move them."""
    returns: Array
    """Share of records in which the layer's statistics have turned back."""
    judged: NDArray[np.bool_]
    first: int
    """The layer nearest to the data."""
    size: int | None

    @property
    def alternating(self) -> NDArray[np.bool_]:
        """Layers whose neighbouring batches are not alike."""
        return np.asarray(self.judged & (self.neighbours > ALIKE_LIMIT))

    @property
    def sorted(self) -> NDArray[np.bool_]:
        """Layers whose batches are alike for a while and then others, and that come back."""
        if not len(self.overall):
            return self.judged
        moved = self.judged & (self.overall > ALIKE_LIMIT) & (self.overall > ALIKE_LIMIT * self.neighbours)
        # Weights that wander move deep layers most; what comes with the data is there from the first layer on.
        return np.asarray(moved & (self.returns >= RETURNS_SHARE) & bool(moved[self.first]))

    @property
    def unlike(self) -> NDArray[np.bool_]:
        """Either."""
        return np.asarray(self.alternating | self.sorted)


def batches(history: History, layers: LayerTable) -> Batches:
    """Read the spreads of a run's batches."""
    size = history.manifest.batch_size
    second_half = history.row("lag_cosine")[len(history.steps) // 2 :]
    known = ~np.isnan(second_half)
    with np.errstate(all="ignore"):
        returns = np.where(known.any(0), (second_half < RETURNS).sum(0) / known.sum(0), 0.0)
    return Batches(
        neighbours=(size or np.nan) * layers.noise_mean**2,
        overall=layers.between_within,
        returns=returns,
        judged=layers.noise_updates >= LEAST_UPDATES,
        first=int(np.argmin([x.order if x.order >= 0 else x.index for x in history.manifest.layers] or [0])),
        size=size,
    )
