"""Rows whose inputs lie far outside of where most of them lie."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.spread import evenly

REACH = 5.0
"""Interquartile ranges from the median: 6.7 standard deviations of normal values. The printed fix clips there."""
MOST_COLUMNS = 1024
"""Columns that are examined, spread over all."""


def extreme_rows(inputs: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Which rows have an entry far outside of its column's, [N].

    Columns that hardly vary are held against the mean range of all, so that sparse inputs are not extreme.

    Args:
        inputs: [N, F].

    Example:
        >>> rows = np.linspace(-1, 1, 40).reshape(20, 2)
        >>> rows[3, 1] = 50
        >>> np.flatnonzero(extreme_rows(rows))
        array([3])
    """
    columns = evenly(inputs.shape[1], MOST_COLUMNS)
    x = inputs[:, columns].astype(np.float64)
    if not x.size:
        return np.zeros(len(x), bool)
    low, middle, high = np.nanquantile(x, (0.25, 0.5, 0.75), axis=0)
    spread = np.maximum(high - low, np.mean(high - low))
    return np.asarray((np.abs(x - middle) > REACH * spread).any(axis=1) & bool(spread.max() > 0))
