"""Batch noise: what the randomness of single batches leaves in averages of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def noise_floor(sigma: ArrayLike, momentum: ArrayLike) -> Array:
    """Standard deviation of a converged moving mean around the true mean, ``sigma * sqrt((1-beta)/(1+beta))``.

    The stationary variance of an exponentially weighted mean of independent values; no lag is smaller than what
    this hides. Momentum 0 gives ``sigma``: the moving mean is the last batch.

    Args:
        sigma: standard deviation of a single batch's statistic, any unit, any shape.
        momentum: beta in [0, 1], broadcast against ``sigma``.

    Returns:
        The unit of ``sigma``.

    Example:
        >>> float(noise_floor(1.0, 0.0)), round(float(noise_floor(1.0, 0.99)), 4)
        (1.0, 0.0709)
    """
    sigma, momentum = np.asarray(sigma, np.float64), np.asarray(momentum, np.float64)
    with np.errstate(all="ignore"):
        return np.asarray(sigma * np.sqrt(np.clip((1.0 - momentum) / (1.0 + momentum), 0.0, None)))


def pooled_noise(sigma: ArrayLike, momentum: ArrayLike, updates: ArrayLike) -> Array:
    """Standard deviation of moving mean minus pooled mean when nothing lags.

    The two are treated as independent, ``sigma * sqrt((1-beta)/(1+beta) + 1/n)``: an upper bound, since they share
    their latest batches.

    Args:
        sigma: standard deviation of a single batch's statistic.
        momentum: beta.
        updates: batches n in the pool; 0 gives inf.

    Example:
        >>> round(float(pooled_noise(1.0, 0.99, 20)), 4)
        0.2346
    """
    updates = np.asarray(updates, np.float64)
    with np.errstate(all="ignore"):
        return np.asarray(np.hypot(noise_floor(sigma, momentum), np.asarray(sigma, np.float64) / np.sqrt(updates)))
