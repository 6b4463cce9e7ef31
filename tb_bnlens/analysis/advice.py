"""Which momentum: large enough to average the noise, small enough to converge in time and follow the drift."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tb_bnlens.analysis.convergence import steps_to_converge
from tb_bnlens.analysis.drift import permanent_lag
from tb_bnlens.analysis.loss_gap import WARNING_HARM
from tb_bnlens.analysis.noise import noise_floor
from tb_bnlens.analysis.replays import ROUNDING
from tb_bnlens.metadata import REPLAY_MOMENTUMS

Array = NDArray[np.float64]

ENLARGED = 32
"""Least batch size that is advised: Wu & He 2018 ("Group Normalization", figure 1) see nothing to gain beyond it."""
MOST_ENLARGED = 16.0
"""No more than about this many times the present batch size is advised; beyond that, normalize without batches."""
LEAST_CUT = 3.0
"""The advised learning rate is lower by at least this factor, since a smaller step shows in no figure."""


def converging_momentum(error: ArrayLike, updates: ArrayLike, tolerance: float = 0.1) -> Array:
    """Largest beta with ``error * beta**updates <= tolerance``: ``(tolerance/error)^(1/updates)``, at most 1.

    Example:
        >>> round(float(converging_momentum(9.0, 448)), 3)
        0.99
    """
    error, updates = np.asarray(error, np.float64), np.asarray(updates, np.float64)
    with np.errstate(all="ignore"):
        beta = np.exp(np.log(tolerance / error) / updates)
        return np.asarray(np.where(error <= tolerance, 1.0, np.where(updates > 0, beta, 0.0)))


def tracking_momentum(rate: ArrayLike, sigma: ArrayLike) -> Array:
    """The beta that minimizes squared lag plus noise, ``(r beta/(1-beta))^2 + sigma^2 (1-beta)/(1+beta)``.

    With ``a = 1 - beta`` the minimum solves ``sigma^2 a^3 = r^2 (1-a) (2-a)^2``, whose one root in (0, 1) is found
    by bisection; for little drift ``a ~ (4 r^2/sigma^2)^(1/3)`` (Muth 1960 solves the random walk).

    Args:
        rate: drift r per update; 0 gives 1 (average for ever).
        sigma: standard deviation of a single batch's statistic, same unit; 0 gives 0 (copy the last batch).

    Example:
        >>> round(float(tracking_momentum(1e-4, 1.0)), 4)  # 1 - (4e-8)^(1/3) = 0.9966
        0.9966
    """
    r, sigma = np.broadcast_arrays(np.asarray(rate, np.float64), np.asarray(sigma, np.float64))
    low, high = np.zeros(r.shape), np.ones(r.shape)
    for _ in range(60):
        a = 0.5 * (low + high)
        above = sigma**2 * a**3 > r**2 * (1.0 - a) * (2.0 - a) ** 2
        low, high = np.where(above, low, a), np.where(above, a, high)
    beta = np.where(r == 0.0, 1.0, 1.0 - 0.5 * (low + high))
    return np.asarray(np.where(np.isnan(r) | np.isnan(sigma), np.nan, beta))


def round_down(momentum: float) -> float:
    """The largest momentum in common use (the ones that are replayed) that is not above this one.

    Example:
        >>> round_down(0.985), round_down(0.2)
        (0.97, 0.5)
    """
    return max((m for m in REPLAY_MOMENTUMS if m <= momentum + ROUNDING), default=REPLAY_MOMENTUMS[0])


@dataclass(frozen=True)
class WhatIf:
    """A momentum's price: updates to converge, permanent lag and noise (in batch standard deviations)."""

    momentum: float
    updates: float
    lag: float
    noise: float


def what_if(momentum: float, error: float, rate: float, sigma: float, tolerance: float = 0.1) -> WhatIf:
    """The numbers behind a momentum for one layer: error now, drift per update, noise of one batch.

    Example:
        >>> what_if(0.99, 9.0, 0.0, 0.0).updates
        448.0
    """
    return WhatIf(
        momentum,
        float(steps_to_converge(error, momentum, tolerance)),
        float(permanent_lag(rate, momentum)),
        float(noise_floor(sigma, momentum)),
    )


def larger_batches(size: int | None, harm: float) -> int:
    """Batch size at which noise costs no warning: what it costs goes with its square, and so with 1/n.

    Args:
        size: the present batch size, None where it is not known.
        harm: what noise costs now, as ``loss_gap.Gap.harm`` has it.

    Example:
        >>> larger_batches(8, 4.0)
        64
    """
    times = min(harm / WARNING_HARM, MOST_ENLARGED)
    return max(ENLARGED, int(2 ** math.ceil(math.log2(max(2.0, times * (size or 8))))))


def lower_learning_rate(rate: float, tolerance: float, lag: float) -> float | None:
    """Learning rate at which a lag in proportion to it would be within tolerance, None where it cannot be told.

    Example:
        >>> round(lower_learning_rate(0.03, 0.1, 2.0), 6), round(lower_learning_rate(0.03, 0.1, 0.2), 6)
        (0.0015, 0.01)
    """
    if not (math.isfinite(rate) and lag > 0.0):
        return None
    return min(rate * tolerance / lag, rate / LEAST_CUT)
