"""Memory that a long run needed for a moment, given back to the system.

A reply of the data provider is decoded into some hundred blocks of 100 kB. glibc keeps such blocks when they are freed,
and the more of them it has seen the more it keeps: of 157 MB that TensorBoard held after the overview of 500 layers
and a million steps, 50 MB were nothing but that. Where the C library has no such calls, nothing is done.
"""

from __future__ import annotations

import contextlib
import ctypes

WORTH_IT = 4 * 2**20
"""Bytes of runs after which it is tried, one large run or many small ones; it takes some milliseconds."""
M_TRIM_THRESHOLD = -1
KEPT_AT_MOST = 2**20
"""Free bytes at the end of a thread's memory that glibc may keep."""


def keep_little() -> None:
    """Fix the limit of what is kept, which glibc would raise to 64 MB; to be called before anything is read."""
    _call("mallopt", M_TRIM_THRESHOLD, KEPT_AT_MOST)


class Freed:
    """Counts the runs that were worked on, and returns what is free by now where that is worth it."""

    def __init__(self) -> None:
        self._bytes = 0

    def add(self, size: int) -> None:
        """Take note of work on a run of this many bytes."""
        # Two threads may lose a count to each other: the next run makes up for it.
        self._bytes += size
        if self._bytes >= WORTH_IT:
            self._bytes = 0
            _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    with contextlib.suppress(AttributeError, OSError, TypeError):
        getattr(ctypes.CDLL(None), name)(*arguments)
