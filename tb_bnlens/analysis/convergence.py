"""Steps to converge: how many more updates until a moving statistic has caught up."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def steps_to_converge(error: ArrayLike, momentum: ArrayLike, tolerance: float = 0.1) -> NDArray[np.float64]:
    """Least number of updates n with ``error * momentum**n <= tolerance``.

    The moving statistics approach constant batch statistics geometrically, ``m' = beta m + (1-beta) mu``, so the
    error after n updates is ``error * beta**n``. With ``error`` from ``distance.convergence_error`` this is the
    least n with ``|mu-m| beta^n <= tol sqrt(v+eps)`` and ``|s-v| beta^n <= tol v``.

    Args:
        error: relative error now, >= 0, any shape; NaN gives NaN.
        momentum: beta, broadcast against ``error``; 1 and above never converges, 0 takes one update.
        tolerance: relative error that counts as converged, > 0.

    Returns:
        Updates, float64, 0 where the error is within tolerance already, inf where it never gets there
        (momentum >= 1, or an infinite error).

    Raises:
        ValueError: the tolerance is not positive.

    Example:
        >>> float(steps_to_converge(9.0, 0.99)), float(steps_to_converge(9.0, 0.999))
        (448.0, 4498.0)
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance!r}; it is a relative error and has to be greater than 0")
    error, momentum = np.broadcast_arrays(np.asarray(error, np.float64), np.asarray(momentum, np.float64))
    with np.errstate(all="ignore"):
        # Rounding must not turn an exact whole number of steps into one more.
        n = np.ceil(np.log(error / tolerance) / -np.log(momentum) - 1e-9)
        n = np.where(momentum <= 0.0, 1.0, n)
        n = np.where(momentum >= 1.0, np.inf, n)
        n = np.where(np.isinf(error), np.inf, n)
        n = np.where(error <= tolerance, 0.0, n)
        return np.asarray(np.where(np.isnan(error) | np.isnan(momentum), np.nan, n))
