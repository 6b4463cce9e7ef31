"""Memory that a long run needed for a moment, given back to the system.

A reply of the data provider is decoded into some hundred blocks of 100 kB. glibc keeps such blocks when they are freed,
and the more of them it has seen the more it keeps: of 157 MB that TensorBoard held after the overview of 500 layers
and a million steps, 50 MB were nothing but that. Where the C library has no such calls, nothing is done.
"""

from __future__ import annotations

import contextlib
import ctypes

WORTH_IT = 4 * 2**20
"""Bytes of a run from which on it is tried; it takes some milliseconds."""
M_TRIM_THRESHOLD = -1
KEPT_AT_MOST = 2**20
"""Free bytes at the end of a thread's memory that glibc may keep."""


def keep_little() -> None:
    """Fix the limit of what is kept, which glibc would raise to 64 MB; to be called before anything is read."""
    _call("mallopt", M_TRIM_THRESHOLD, KEPT_AT_MOST)


def give_back(size: int) -> None:
    """Return what is free by now, after work on a run of this many bytes."""
    if size >= WORTH_IT:
        _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    with contextlib.suppress(AttributeError, OSError, TypeError):
        getattr(ctypes.CDLL(None), name)(*arguments)
