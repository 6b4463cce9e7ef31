"""Whether targets are classes, and what there is to learn of them: there a loss near zero matters less."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.spread import evenly

MOST_VALUES = 65_536
"""Values that are read; masks of images have many more."""
NO_CLASSES = -1.0


def entropy(targets: Sequence[NDArray[Any]]) -> float:
    """Entropy of the shares of the classes, in nats: the loss of knowing nothing but these shares.

    Whole numbers are classes, and so is one column for each. Real numbers are where they are 0 and 1, or -1 and 1.
    Where several columns may be 1 in a row it is the mean over columns.

    Args:
        targets: of a batch, one array for each output.

    Returns:
        The least of all outputs; ``NO_CLASSES`` where some are real numbers, NaN where nothing tells.

    Example:
        >>> entropy([np.array([0, 1, 1, 0])]), entropy([np.array([0.3, 1.0])]), entropy([np.zeros(8)])
        (0.6931471805599453, -1.0, 0.0)
    """
    found = [_entropy(np.asarray(one)) for one in targets]
    return min(found) if found and not any(map(math.isnan, found)) else math.nan


def entropy_in(targets_of: Callable[[Any], Sequence[NDArray[Any]]], batch: Any) -> float:
    """The same of a batch, NaN where its targets cannot be read: they may be objects of the user's."""
    try:
        return entropy(targets_of(batch))
    except Exception:
        return math.nan


def entropy_in_all(targets_of: Callable[[Any], Sequence[NDArray[Any]]], batches: Sequence[Any]) -> float:
    """The mean over batches; ``NO_CLASSES`` where one has real numbers."""
    known = [e for e in (entropy_in(targets_of, batch) for batch in batches) if not math.isnan(e)]
    return (float(np.mean(known)) if min(known) >= 0.0 else NO_CLASSES) if known else math.nan


def _entropy(values: NDArray[Any]) -> float:
    if not values.size or values.dtype.kind not in "biuf":
        return math.nan
    columns = values.shape[-1] if values.ndim > 1 else 1
    rows = values.reshape(-1, columns)
    rows = rows[evenly(len(rows), max(MOST_VALUES // columns, 1))]
    some, counts = np.unique(rows, return_counts=True)
    if values.dtype.kind == "f" and not (set(some) <= {0, 1} or set(some) <= {-1, 1}):
        return NO_CLASSES
    if columns > 1 and set(some) <= {0, 1}:
        shares = rows.mean(axis=0)
        one_of_them = bool((rows.sum(axis=1) == 1).all())
        return _of(shares) if one_of_them else float(np.mean([_of(np.array([p, 1.0 - p])) for p in shares]))
    return _of(counts / counts.sum())


def _of(shares: NDArray[np.float64]) -> float:
    shares = shares[shares > 0.0]
    return float(-(shares * np.log(shares)).sum()) + 0.0
