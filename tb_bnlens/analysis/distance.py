"""How far the moving statistics are from the batch statistics: pure formulas, per channel.

Notation: ``mu``, ``v`` are the mean and biased variance of the batch statistics (what training mode normalizes
with), ``m``, ``s`` the moving mean and variance (what inference normalizes with). All arrays are [..., C], and so may
be ``epsilon``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

LIVE_SHARE = 0.01
"""A channel is *live* while v > LIVE_SHARE * epsilon: below it, its normalized output has a standard deviation
under 0.1 in training mode, whatever the statistics say, and ratios of its variance mean nothing."""


def distance(mu: ArrayLike, v: ArrayLike, m: ArrayLike, s: ArrayLike, epsilon: ArrayLike) -> Array:
    """2-Wasserstein distance between the layer's normalized output in training mode and at inference.

    With ``a = sqrt((v+eps)/(s+eps))`` and ``b = (mu-m)/sqrt(s+eps)`` the inference output is ``a z + b`` of the
    training-mode output ``z``; for a standard normal ``z`` the distance is ``sqrt((a-1)^2 + b^2)``. ``a`` and
    ``b`` are the r and d of Batch Renormalization (Ioffe 2017, section 3).

    Returns:
        [..., C], in batch standard deviations; 0 is agreement. NaN where a statistic is not finite or a moving
        variance is below ``-epsilon``.

    Example:
        >>> float(distance(0.0, 1.0, 1.0, 1.0, 0.0))
        1.0
    """
    mu, v, m, s, epsilon = (np.asarray(x, np.float64) for x in (mu, v, m, s, epsilon))
    with np.errstate(all="ignore"):
        inference_sd = np.sqrt(s + epsilon)
        a = np.sqrt(v + epsilon) / inference_sd
        b = (mu - m) / inference_sd
        w = np.sqrt(np.square(a - 1.0) + np.square(b))  # np.hypot takes ten times as long
    return np.asarray(np.where(np.isfinite(w), w, np.nan))


def mean_error(mu: ArrayLike, v: ArrayLike, m: ArrayLike, epsilon: ArrayLike) -> Array:
    """Signed error of the moving mean, ``(m - mu) / sqrt(v + eps)``, in batch standard deviations, [..., C]."""
    mu, v, m, epsilon = (np.asarray(x, np.float64) for x in (mu, v, m, epsilon))
    with np.errstate(all="ignore"):
        return np.asarray((m - mu) / np.sqrt(v + epsilon))


def variance_error(v: ArrayLike, s: ArrayLike, epsilon: ArrayLike) -> Array:
    """Signed relative error of the moving variance, ``(s - v) / max(v, eps)``, [..., C].

    The denominator is gated on epsilon: under it the ratio to ``v`` says nothing about the output.
    """
    v, s, epsilon = (np.asarray(x, np.float64) for x in (v, s, epsilon))
    with np.errstate(all="ignore"):
        return np.asarray((s - v) / np.maximum(v, epsilon))


def convergence_error(mu: ArrayLike, v: ArrayLike, m: ArrayLike, s: ArrayLike, epsilon: ArrayLike) -> Array:
    """The larger of the two relative errors, [..., C]; NaN for channels that are not live.

    Both terms shrink by the momentum at every update, so ``steps_to_converge`` of it is exact for any tolerance.
    """
    v64 = np.asarray(v, np.float64)
    e = np.maximum(np.abs(mean_error(mu, v, m, epsilon)), np.abs(variance_error(v, s, epsilon)))
    return np.asarray(np.where(v64 > LIVE_SHARE * np.asarray(epsilon), e, np.nan))
