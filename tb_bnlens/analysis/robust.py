"""Summaries that leave NaN out and are NaN where nothing is left, without NumPy's warning."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def median(values: ArrayLike) -> float:
    """Median of the known values, NaN where there is none.

    Example:
        >>> median([1.0, float("nan"), 3.0]), median([])
        (2.0, nan)
    """
    known = _known(values)
    return float(np.median(known)) if len(known) else math.nan


def largest(values: ArrayLike) -> float:
    """Greatest of the known values, NaN where there is none.

    Example:
        >>> largest([1.0, float("nan"), 3.0])
        3.0
    """
    known = _known(values)
    return float(np.max(known)) if len(known) else math.nan


def _known(values: ArrayLike) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    flat = np.asarray(values, np.float64).ravel()
    return flat[~np.isnan(flat)]
