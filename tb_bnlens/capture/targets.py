"""Whether the targets of a batch are classes: a loss near zero matters less there than in a regression."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.spread import evenly

MOST_VALUES = 65_536
"""Values that are read; masks of images have many more."""
TWO_VALUES = ((0, 1), (-1, 1))
"""Targets of two classes as real numbers; one column for each class is made of the first two as well."""


def classes(targets: Sequence[NDArray[Any]]) -> float:
    """How many classes targets are of: 0 where some are real numbers, NaN where nothing tells.

    Whole numbers are classes, as labels or as one column for each. Targets that are all the same may be anything.

    Args:
        targets: of a batch, one array for each output.

    Example:
        >>> classes([np.array([0, 2, 1])]), classes([np.eye(4)]), classes([np.array([0.3, 1.0])])
        (3.0, 4.0, 0.0)
        >>> classes([np.zeros(8)])
        nan
    """
    found = [_classes(np.asarray(one)) for one in targets]
    return min(found) if found and not any(map(math.isnan, found)) else math.nan


def classes_in(targets_of: Callable[[Any], Sequence[NDArray[Any]]], batch: Any) -> float:
    """The same of a batch, NaN where its targets cannot be read: they may be objects of the user's."""
    try:
        return classes(targets_of(batch))
    except Exception:
        return math.nan


def classes_of_all(targets_of: Callable[[Any], Sequence[NDArray[Any]]], batches: Sequence[Any]) -> float:
    """The same of several batches; each may hold some of the classes."""
    known = [n for n in (classes_in(targets_of, batch) for batch in batches) if not math.isnan(n)]
    return (max(known) if min(known) > 0 else 0.0) if known else math.nan


def _classes(values: NDArray[Any]) -> float:
    if not values.size or values.dtype.kind not in "biuf":
        return math.nan
    columns = values.shape[-1] if values.ndim > 1 else 1
    some = np.unique(values.reshape(-1)[evenly(values.size, MOST_VALUES)])
    if len(some) < 2:
        return math.nan
    if values.dtype.kind == "f":
        return float(max(2, columns)) if tuple(some) in TWO_VALUES else 0.0
    one_hot = columns > 1 and tuple(some) == (0, 1)
    return float(columns if one_hot else some[-1] + 1)
