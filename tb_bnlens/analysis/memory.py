"""Start memory: how much of its initial value a moving statistic still holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def start_memory(momentum: ArrayLike, updates: ArrayLike) -> Array:
    """Weight of the initial value in the moving statistic, ``beta ** updates``, in [0, 1].

    Example:
        >>> round(float(start_memory(0.999, 400)), 2)
        0.67
    """
    momentum = np.clip(np.asarray(momentum, np.float64), 0.0, 1.0)
    return np.asarray(momentum ** np.asarray(updates, np.float64))


def start_error(
    mu_rms: ArrayLike, v: ArrayLike, m0_rms: ArrayLike, s0: ArrayLike, momentum: ArrayLike, updates: ArrayLike
) -> Array:
    """Relative error that the start alone still causes, in the unit of ``distance.convergence_error``.

    ``beta^n * max((|mu| + |m0|)/sqrt(v), |s0 - v|/v)`` from figures that stand for a whole layer: rms of the means,
    geometric mean of the variances (epsilon included). An upper bound for the mean, a typical channel's value for
    the variance.

    Args:
        mu_rms: rms over channels of the batch mean now, [L].
        v: geometric mean over channels of the batch variance now, epsilon included, [L].
        m0_rms: as ``mu_rms`` for the moving mean at the start, [L].
        s0: as ``v`` for the moving variance at the start, [L].
        momentum: beta, [L].
        updates: updates since that start, [L].

    Example:
        >>> round(float(start_error(0.0, 0.1, 0.0, 1.0, 0.99, 448)), 3)
        0.1
    """
    mu_rms, v, m0_rms, s0 = (np.asarray(x, np.float64) for x in (mu_rms, v, m0_rms, s0))
    with np.errstate(all="ignore"):
        e0 = np.maximum((np.abs(mu_rms) + np.abs(m0_rms)) / np.sqrt(v), np.abs(s0 - v) / v)
        return np.asarray(start_memory(momentum, updates) * e0)
