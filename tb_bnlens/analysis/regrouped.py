"""How often chance alone makes the losses of batches differ as they do: by random regroupings of the values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FALSE_ALARMS = 1e-3
"""Share of runs of random batches that are called unlike."""
ORDERED = 0.05
"""An order is called random unless fewer random orders than this share have neighbours that differ as little."""
REGROUPINGS = 4999
"""...which so many random regroupings tell to 14% (a standard error)."""


def chance_of_ratio(upper: Array, lower: Array) -> float:
    """Share of random regroupings of all values in which the ratio of the groups' variances is as large as here.

    Batch losses have heavy tails, for which the F distribution calls chance a difference.

    Example:
        >>> values = np.arange(12.0)
        >>> chance_of_ratio(values, values), chance_of_ratio(9 * values, values)
        (1.0, 0.0002)
    """
    pooled = np.concatenate([upper, lower])
    if len(upper) < 3 or len(lower) < 3 or not np.isfinite(pooled).all() or not np.var(upper) > np.var(lower):
        return 1.0
    groups = np.random.default_rng(0).permuted(np.tile(pooled, (REGROUPINGS, 1)), axis=1)
    with np.errstate(all="ignore"):
        ratios = np.var(groups[:, : len(upper)], axis=1) / np.var(groups[:, len(upper) :], axis=1)
        as_large = int(np.sum(ratios >= np.var(upper) / np.var(lower)))
    return (1 + as_large) / (1 + REGROUPINGS)


def chance_of_neighbours(values: Array) -> float:
    """Share of random orders in which neighbours differ as little as here, by the mean of their squared differences.

    Example:
        >>> chance_of_neighbours(np.arange(12.0)), chance_of_neighbours(np.resize([1.0, -1.0], 12))
        (0.0002, 1.0)
    """
    orders = np.random.default_rng(0).permuted(np.tile(values, (REGROUPINGS, 1)), axis=1)
    apart = np.square(np.diff(orders, axis=1)).sum(1)
    as_alike = int(np.sum(apart <= np.square(np.diff(values)).sum()))
    return (1 + as_alike) / (1 + REGROUPINGS)
