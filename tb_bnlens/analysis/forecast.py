"""Convergence in terms of the loss: from measured losses at statistics advanced n updates."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

NOISE_SHARE = 0.01
"""An excess under this share of the one that is looked for says that it is past, not when it was."""


def updates_to_loss(updates: ArrayLike, losses: ArrayLike, target: float, limit: float = 0.0) -> float:
    """First number of updates whose loss is at or below the target and stays there, interpolated.

    Between two points the excess over the limit is taken as geometric, since that is how the statistics' error
    shrinks and losses fall by orders of magnitude. Where the later point has converged so far that its excess is
    rounding and noise, the greater of the least pace that takes it there and the pace before is taken.

    Args:
        updates: n of each forecast, [F], 0 for the loss now; NaN entries are left out, the order does not matter.
        losses: inference loss after n more updates at the same weights, [F]; inf is a loss that overflowed.
        target: loss that counts as converged.
        limit: loss that the forecast tends to, below the target.

    Returns:
        Updates; 0 where the loss is there already, inf where no forecast point gets there, NaN without points.

    Example:
        >>> updates_to_loss([0, 100, 200], [100.0, 10.0, 1.0], 10.0)
        100.0
        >>> updates_to_loss([0, 100], [100.0, 10.0], 1.0)
        inf
    """
    n, loss = np.asarray(updates, np.float64), np.asarray(losses, np.float64)
    known = ~(np.isnan(n) | np.isnan(loss))
    order = np.argsort(n[known], kind="stable")
    n, loss = n[known][order], loss[known][order]
    if not len(n):
        return math.nan
    above = np.flatnonzero(loss > target)
    if not len(above):
        return 0.0
    last = int(above[-1])
    if last == len(n) - 1:
        return math.inf
    left, right, goal = loss[last] - limit, loss[last + 1] - limit, target - limit
    if not math.isfinite(left):
        return float(n[last + 1])
    if goal > 0:
        span, paces = n[last + 1] - n[last], [math.log(left / max(right, NOISE_SHARE * goal)) / (n[last + 1] - n[last])]
        if right <= NOISE_SHARE * goal and last > 0 and math.isfinite(loss[last - 1]) and loss[last - 1] - limit > left:
            paces.append(math.log((loss[last - 1] - limit) / left) / (n[last] - n[last - 1]))
        return float(n[last] + min(math.log(left / goal) / max(paces), span))
    share = (left - goal) / (left - right) if left > right else 1.0
    return float(n[last] + share * (n[last + 1] - n[last]))
