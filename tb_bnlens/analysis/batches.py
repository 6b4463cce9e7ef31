"""Are the batches similar: the spread of their means against what samples drawn at random would give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.history import History

Array = NDArray[np.float64]

ALIKE_LIMIT = 4.0
"""``n * var(batch means) / v`` is at most n/(n-1) for samples drawn at random, whatever is correlated within a sample:
a batch's own variance holds ``1 - 1/n`` of that between samples. This is how many times that; over 8 batches the
estimate of one channel is below 3.5 times its value in 999 cases of 1,000 (chi-squared, 7 degrees of freedom), and a
layer reports its median channel."""


@dataclass(frozen=True)
class BatchScatter:
    """Spread of the batch means per layer, [L], as a multiple of what samples drawn at random give at most."""

    overall: Array
    """Of batches from all over the run at the same weights: above 1 when they are sorted or take turns."""
    size: int | None
    unequal: float = 1.0
    """Largest over smallest batch: the spread is that of the smallest, and the factor n that of any."""

    @property
    def limit(self) -> float:
        """What the spread has to exceed; inf for batches of one sample, which tell nothing of the samples' spread."""
        if self.size is None:
            return ALIKE_LIMIT * self.unequal
        return ALIKE_LIMIT * self.unequal * self.size / (self.size - 1) if self.size > 1 else np.inf

    @property
    def unlike(self) -> NDArray[np.bool_]:
        """Layers whose batches differ."""
        return np.asarray(self.overall > self.limit)


def batches(history: History, layers: LayerTable) -> BatchScatter:
    """Read the spreads of a run's batches."""
    size = history.manifest.batch_size
    probed = history.loss("batch_size")
    probed = probed[probed > 0]
    return BatchScatter(
        overall=layers.between_within,
        size=size,
        unequal=float(probed.max() / probed.min()) if len(probed) else 1.0,
    )
