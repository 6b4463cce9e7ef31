"""A few batches, rows and columns, spread evenly over a user's data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.reasons import what_is

READ = 8
"""Batches that are read at most for each one that is kept: reading can take longer than the passes."""
SHUFFLE_SEED = 0
"""Rows of arrays are drawn with a fixed seed, so that a check can be repeated."""


def drawn_rows(count: int, size: int) -> Iterator[NDArray[np.int64]]:
    """Indices of ``count`` rows in a random order, in batches of ``size``."""
    order = np.random.default_rng(SHUFFLE_SEED).permutation(count)
    for start in range(0, count, size):
        yield order[start : start + size]


def evenly(total: int, most: int) -> NDArray[np.int64]:
    """At most so many positions of a total, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, total - 1, min(total, most)).astype(np.int64))


def spread(batches: Iterable[Any], most: int) -> list[Any]:
    """At most so many of some batches, spread over them; the first ones where their number is not known."""
    length = len(batches) if isinstance(batches, Sized) else most
    wanted = set(evenly(min(length, most * READ), most).tolist())
    # Reading stops after the last one.
    return [batch for i, batch in enumerate(islice(batches, max(wanted, default=-1) + 1)) if i in wanted]


def require_iterable(data: Any, expected: str) -> None:
    """Refuse what gives no batches.

    Raises:
        TypeError: the message says what came, and what is expected.
    """
    if not isinstance(data, Iterable) or isinstance(data, str | Mapping):
        raise TypeError(f"the data is {what_is(data)}; expected {expected}")
    if not isinstance(data, list) or not all(hasattr(part, "shape") for part in data):
        return
    if len({tuple(part.shape)[1:] for part in data}) > 1:
        raise TypeError(
            f"the data is a list of {len(data)} arrays that are no batches of one kind; expected {expected}, and "
            "(x, y) as a tuple"
        )
