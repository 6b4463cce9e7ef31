"""Drift: batch statistics that move while the moving statistics follow."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

FALSE_ALARM_Z = 3.09
"""One-sided normal quantile of 0.1%: a layer without drift is called drifting once in a thousand times."""

INDEPENDENT_CHANNELS = 8
"""Channels of a layer are correlated, so an rms over many of them is no surer than one over this many."""


def permanent_lag(rate: ArrayLike, momentum: ArrayLike) -> Array:
    """Lag of a moving mean behind statistics that move steadily, ``r * beta / (1 - beta)``.

    Args:
        rate: drift r per update, any unit.
        momentum: beta; 1 gives inf for any drift.

    Example:
        >>> round(float(permanent_lag(1e-3, 0.999)), 3)
        0.999
    """
    rate, momentum = np.asarray(rate, np.float64), np.asarray(momentum, np.float64)
    with np.errstate(all="ignore"):
        lag = rate * momentum / (1.0 - momentum)
        return np.asarray(np.where(rate == 0.0, 0.0, lag))


def significance_limit(channels: ArrayLike) -> Array:
    """How many times its noise a shift, as rms over channels, has to be before it is no accident.

    Without drift ``C * (shift/noise)^2`` is chi-squared with C degrees of freedom (at most
    ``INDEPENDENT_CHANNELS``); the limit is its 99.9% point, see ``variance_limit``.

    Example:
        >>> [round(float(x), 1) for x in significance_limit([1, 8, 512])]
        [3.3, 1.8, 1.8]
    """
    return np.sqrt(variance_limit(np.clip(np.asarray(channels, np.float64), 1.0, INDEPENDENT_CHANNELS)))


def variance_limit(freedom: ArrayLike) -> Array:
    """How many times its expected value a variance has to be before it is no accident: 99.9% of cases lie below.

    The 99.9% point of chi-squared over its degrees of freedom, by Wilson and Hilferty (1931).

    Example:
        >>> [round(float(x), 1) for x in variance_limit([1, 11, 23])]
        [11.2, 2.9, 2.2]
    """
    k = 2.0 / (9.0 * np.maximum(np.asarray(freedom, np.float64), 1.0))
    return np.asarray((1.0 - k + FALSE_ALARM_Z * np.sqrt(k)) ** 3)


def rate(shift: ArrayLike, shift_noise: ArrayLike, span: ArrayLike, channels: ArrayLike) -> Array:
    """Drift of the batch means per step, ``sqrt(shift^2 - noise^2) / span``; 0 where it is not significant.

    Args:
        shift: rms over channels of the short pool's mean minus the long pool's, in batch standard deviations.
        shift_noise: what batch noise alone makes of it.
        span: steps between the centres of the two pools.
        channels: channels behind the rms.

    Returns:
        Batch standard deviations a step; NaN where the shift or its noise is not known.

    Example:
        >>> round(float(rate(0.5, 0.3, 40, 64)), 6), round(float(rate(0.5, 0.05, 40, 64)), 4)
        (0.0, 0.0124)
    """
    shift, noise, span = (np.asarray(x, np.float64) for x in (shift, shift_noise, span))
    with np.errstate(all="ignore"):
        r = np.sqrt(np.clip(shift**2 - noise**2, 0.0, None)) / span
        r = np.where(shift > significance_limit(channels) * noise, r, 0.0)
        return np.asarray(np.where(np.isnan(shift) | np.isnan(noise) | ~(span > 0), np.nan, r))
