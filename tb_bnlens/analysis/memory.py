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


def course_of_memory(momentum: ArrayLike, updates: ArrayLike) -> Array:
    """Weight of the initial value at each record of a run whose momentum may have been set on the way, [R, L].

    Between two records whose momentum differs half of the updates are taken to be of either.

    Args:
        momentum: beta at each record, [R, L].
        updates: so far, at each record, [R, L].

    Example:
        Ten updates at 0.9 and a hundred at 0.999, against all of them at 0.999:

        >>> course_of_memory([[0.9], [0.999]], [[10], [110]])[-1].round(3), start_memory(0.999, 110).round(3)
        (array([0.002]), np.float64(0.896))
    """
    momentum, updates = np.clip(np.asarray(momentum, np.float64), 0.0, 1.0), np.asarray(updates, np.float64)
    made = np.diff(updates, axis=0, prepend=0.0)
    with np.errstate(all="ignore"):
        log = np.log(momentum)
        between = 0.5 * (log + np.concatenate([log[:1], log[:-1]]))
        left = np.cumsum(np.where(made > 0, made * between, 0.0), axis=0)
    return np.asarray(np.exp(left))


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
