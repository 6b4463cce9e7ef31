"""Renewal: the part of an error that a movement of the batch statistics keeps up."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tb_bnlens.history import History

Array = NDArray[np.float64]

SHARE = 1.0 / 3.0
"""Part of the record, up to now, over which it is seen how much of an error was renewed: the last third. What moved
the batch statistics before, as a higher learning rate, is past."""


def renewed_error(then: ArrayLike, now: ArrayLike, momentum: ArrayLike, updates: ArrayLike) -> Array:
    """Error that is not left from an earlier one: what a movement of the batch statistics keeps up.

    Of the error ``then``, ``beta**k`` is left after k updates. The rest of the error ``now`` was renewed in between,
    and one that is renewed at an even pace tends to ``(now - beta^k then) / (1 - beta^k)``.

    Args:
        then: relative error k updates ago, >= 0, any shape.
        now: relative error now; broadcast.
        momentum: beta; broadcast.
        updates: k >= 0; broadcast.

    Returns:
        Relative error, 0 where the error fell as fast as ``beta**k`` or no update lies between; NaN where an error is
        not known.

    Example:
        >>> round(float(renewed_error(1.0, 0.5, 0.99, 100)), 3), float(renewed_error(1.0, 0.2, 0.99, 100))
        (0.211, 0.0)
    """
    then, now, beta, k = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (then, now, momentum, updates)))
    with np.errstate(all="ignore"):
        kept = beta**k
        excess = now - kept * then
        # The records hold float32 values.
        excess = np.where(excess > 1e-6 * (then + now), excess, 0.0)
        renewed = np.where(kept < 1.0, excess / (1.0 - kept), 0.0)
        return np.asarray(np.where(np.isnan(then) | np.isnan(now), np.nan, renewed))


def renewal(history: History, row: str, beta: Array, records: NDArray[np.int64] | None = None) -> Array:
    """What the batch statistics renewed of an error over the last third of the record before each of some records.

    Args:
        history: the run.
        row: name of the error, e.g. ``"error_p95"``.
        beta: momentum that the statistics show, [L] or [len(records), L].
        records: positions of the records; the last one where None.

    Returns:
        Relative error as ``renewed_error`` has it, [len(records), L], 1 row of NaN for an empty record; 0
        where the layer's momentum or state changed in between, as then the older error says nothing.
    """
    if not len(history.steps):
        return np.full((1, len(history.manifest.layers)), np.nan)
    now = np.array([len(history.steps) - 1]) if records is None else records
    since = history.steps - history.steps[0]
    then = np.searchsorted(since, (1.0 - SHARE) * since[now])

    def both(name: str) -> tuple[Array, Array]:
        values = history.row(name)
        return values[then].astype(np.float64), values[now].astype(np.float64)

    (first, last), (before, after) = both(row), both("updates")
    renewed = renewed_error(first, last, beta, after - before)
    for name in ("momentum", "state"):
        old, new = both(name)
        renewed[old != new] = 0.0
    return renewed
