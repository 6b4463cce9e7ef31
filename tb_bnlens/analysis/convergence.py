"""Steps to converge: how many more updates until a moving statistic has caught up."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

LARGEST_COUNT = 2.0**53
"""Updates that float64 still counts one by one."""


def steps_to_converge(
    error: ArrayLike, momentum: ArrayLike, tolerance: float = 0.1, *, renewed: ArrayLike = 0.0, age: ArrayLike = np.inf
) -> Array:
    """Least number of updates n that takes an error within tolerance.

    The moving statistics approach constant batch statistics geometrically, ``m' = beta m + (1-beta) mu``, so the
    error after n updates is ``error * beta**n``. With ``error`` from ``distance.convergence_error`` this is the
    least n with ``|mu-m| beta^n <= tol sqrt(v+eps)`` and ``|s-v| beta^n <= tol v``. Batch statistics that move keep
    up an error of their own: with each update ``e' = beta e + (1-beta) renewed f^i``, i updates from now and
    ``f = exp(-1 / age)``, so that there it is the least n with
    ``error beta^n + (1-beta) renewed (f^n - beta^n) / (f - beta) <= tolerance``. How the movement fades is an
    assumption; ``arrival.arrival`` bounds it from both sides.

    Args:
        error: relative error now, >= 0, any shape; NaN gives NaN.
        momentum: beta, broadcast against ``error``; 1 and above never converges, 0 takes one update.
        tolerance: relative error that counts as converged, > 0.
        renewed: error that is left however long one waits while the batch statistics move as they did, >= 0, from
            ``renewal.renewed_error``; broadcast. NaN is unknown and counts as 0.
        age: updates over which they were seen to move, > 0; broadcast. inf for a movement without an end.

    Returns:
        Updates, float64, 0 where the error is within tolerance already, inf where it never gets there
        (momentum >= 1, an infinite error, or a renewed one above the tolerance that does not fade).

    Raises:
        ValueError: the tolerance is not positive.

    Example:
        >>> float(steps_to_converge(9.0, 0.99)), float(steps_to_converge(9.0, 0.999))
        (448.0, 4498.0)
        >>> [float(steps_to_converge(9.0, 0.99, renewed=0.05, age=age)) for age in (100, 1000, np.inf)]
        [451.0, 489.0, 517.0]
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance!r}; it is a relative error and has to be greater than 0")
    error, momentum, renewed, age = np.broadcast_arrays(
        *(np.asarray(x, np.float64) for x in (error, momentum, renewed, age))
    )
    with np.errstate(all="ignore"):
        # Rounding must not turn an exact whole number of steps into one more.
        n = np.ceil(np.log(error / tolerance) / -np.log(momentum) - 1e-9)
        n = np.where(momentum <= 0.0, 1.0, n)
        moving = (renewed > 0.0) & (error > tolerance) & np.isfinite(error) & (momentum > 0.0) & (momentum < 1.0)
        if moving.any():
            n[moving] = _while_moving(error[moving], momentum[moving], tolerance, renewed[moving], age[moving])
        n = np.where(momentum >= 1.0, np.inf, n)
        n = np.where(np.isinf(error), np.inf, n)
        n = np.where(error <= tolerance, 0.0, n)
        return np.asarray(np.where(np.isnan(error) | np.isnan(momentum), np.nan, n))


def _while_moving(error: Array, beta: Array, tolerance: float, renewed: Array, fading: Array) -> Array:
    """Least n of each, [N], by bisection: a sum of two exponentials comes down through the tolerance once, or never."""
    log_beta, log_fade = np.log(beta), -1.0 / fading
    slow, ratio = np.maximum(log_beta, log_fade), -np.abs(log_beta - log_fade)

    def above(n: Array) -> NDArray[np.bool_]:
        # sum of fade^i beta^(n-1-i) over i < n, by the slower of the two so that nothing overflows
        together = np.where(ratio == 0.0, n, np.expm1(n * ratio) / np.expm1(ratio)) * np.exp((n - 1.0) * slow)
        return np.asarray(error * beta**n + (1.0 - beta) * renewed * together > tolerance)

    never = above(np.full_like(error, LARGEST_COUNT))
    # A lag only adds to what is left of the start.
    low = np.maximum(np.ceil(np.log(error / tolerance) / -log_beta - 1e-9) - 1.0, 0.0)
    high = np.maximum(2.0 * low, 16.0)
    while np.any(over := above(high) & ~never):
        low, high = np.where(over, high, low), np.where(over, 2.0 * high, high)
    while np.any((high - low > 1.0) & ~never):
        middle = np.floor(0.5 * (low + high))
        over = above(middle)
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    return np.where(never, np.inf, high)
