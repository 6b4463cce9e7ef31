"""How much of their initial values the moving statistics still hold, told from the statistics alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.segments import Segments

Array = NDArray[np.floating[Any]]

EXPLAINED = 0.8
"""Share of the squared error that the initial values must explain. A lag of another origin points anywhere: over
many channels its share is near 0, and one that is half from the start and half not has 0.5."""


def start_left(moving: Moments, batch: Moments, segments: Segments) -> NDArray[np.float64]:
    """Weight of the initial values, mean 0 and variance 1, in the moving statistics of each layer, [L].

    After n updates of momentum beta a moving statistic is ``w * initial + (1 - w) * x`` with ``w = beta^n``, where x
    averages batch statistics. With those at the present weights for x, ``moving - batch`` is w times
    ``initial - batch``: w is fitted over the channels of a layer by least squares.

    Args:
        moving: moving statistics, [C_total].
        batch: batch statistics, [C_total].
        segments: the layers.

    Returns:
        The weight, clipped to [0, 1]; NaN where the initial values do not explain the error, or nothing is known.

    Example:
        A layer of momentum 0.999 after 400 updates on stationary batches has 0.67.
    """
    mu, v, m, s = batch.mean, batch.variance, moving.mean, moving.variance
    with np.errstate(all="ignore"):
        # No channel weighs more than 1, however far from its start it is: the weights do not bias the fit.
        size = np.sqrt(np.square(mu) + np.maximum(v, 1.0))
        pairs = [((m - mu) / size, -mu / size), ((s - v) / np.maximum(v, 1.0), (1.0 - v) / np.maximum(v, 1.0))]
        known = np.isfinite(pairs[0][0]) & np.isfinite(pairs[1][0])

        def total(product: Any) -> Array:
            return segments.sum(np.where(known, sum(product(error, start) for error, start in pairs), 0.0))

        along, start = total(lambda e, d: e * d), total(lambda _, d: d * d)
        error = total(lambda e, _: e * e)
        weight, explained = along / start, along * along / (start * error)
    # Statistics that are those of the batches hold nothing of the start, whatever little is left points to.
    weight = np.where(error == 0, 0.0, np.where(explained >= EXPLAINED, weight, np.nan))
    return np.asarray(np.clip(np.where(segments.count(known) > 0, weight, np.nan), 0.0, 1.0))
