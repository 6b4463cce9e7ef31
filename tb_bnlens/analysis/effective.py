"""Effective momentum: what the moving statistics show, whatever the attribute says."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

MOST_CALLS = 4
"""More calls of a layer in a step are rare, and 0.99 to the power of 10 is near 0.9, another momentum in use."""
POWER_ERROR = 0.05
"""The calls of a step see other data than the probe, which adds some percent to the error of the estimate."""


def shrink_per_update(error: ArrayLike, updates: ArrayLike) -> Array:
    """Factor by which an error shrinks an update: exp of the least-squares slope of ``log(error)``.

    Statistics that only wait for their start to fade shrink by the momentum; a lag behind drift does not shrink.

    Args:
        error: relative error, [T, L]; entries that are not positive are left out.
        updates: BatchNorm updates, [T, L].

    Returns:
        [L]; NaN with fewer than three usable records.

    Example:
        >>> n = np.arange(50.0)[:, None]
        >>> round(float(shrink_per_update(0.7 * 0.99**n, n)[0]), 3)
        0.99
    """
    error, updates = np.asarray(error, np.float64), np.asarray(updates, np.float64)
    with np.errstate(all="ignore"):
        y = np.log(error)
        ok = np.isfinite(y) & np.isfinite(updates)
        count = ok.sum(0)
        x = np.where(ok, updates, 0.0)
        y = np.where(ok, y, 0.0)
        xc = np.where(ok, x - x.sum(0) / count, 0.0)
        slope = (xc * y).sum(0) / (xc**2).sum(0)
        return np.asarray(np.where((count >= 3) & ((xc**2).sum(0) > 0), np.exp(slope), np.nan))


def is_power(effective: ArrayLike, momentum: ArrayLike) -> NDArray[np.bool_]:
    """Whether a momentum is another one to the power of 2, 3 or 4, within ``POWER_ERROR`` of the exponent.

    Example:
        >>> bool(is_power(0.81, 0.9)), bool(is_power(0.9, 0.99)), bool(is_power(0.9, 0.9))
        (True, False, False)
    """
    with np.errstate(all="ignore"):
        power = np.log(np.asarray(effective, np.float64)) / np.log(np.asarray(momentum, np.float64))
        times = np.rint(power)
        return np.asarray((times >= 2) & (times <= MOST_CALLS) & (np.abs(power - times) <= POWER_ERROR * times))


def differs(effective: ArrayLike, momentum: ArrayLike, factor: float = 2.0) -> NDArray[np.bool_]:
    """Whether two momentum values average over windows, ``1/(1-beta)``, that differ by more than a factor.

    Example:
        >>> bool(differs(0.9, 0.99)), bool(differs(0.985, 0.99))
        (True, False)
    """
    effective, momentum = np.asarray(effective, np.float64), np.asarray(momentum, np.float64)
    with np.errstate(all="ignore"):
        # Momentum 1 has an infinite window; anything that moves at all is another one.
        ratio = np.maximum(1.0 - effective, 1e-6) / np.maximum(1.0 - momentum, 1e-6)
        return np.asarray((ratio > factor) | (ratio < 1.0 / factor))
