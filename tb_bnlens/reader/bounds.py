"""What a record can hold at most. The reader lets nothing else in, so that no later code overflows, loops or freezes.

The limits lie far above what the recorder writes. What exceeds one is left out or cut, and a sentence says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_STEP = 2**40
"""A million steps a second for twelve days. Sums and products of two still fit into 64 bits and a float64."""
LATEST = 253_402_300_800.0
"""Seconds from 1970 to the end of the year 9999."""
MOST_LAYERS = 10_000
MOST_CHANNELS = 100_000
"""In one layer's snapshots."""
LARGEST_COUNT = 2**40
"""Of channels, samples or replicas that a manifest states."""
MOST_CALLS = 10_000
"""Of a layer in one step."""
MOST_MANIFESTS = 2_000
"""One is written where a flag or a momentum changes."""
MOST_BYTES = 32 * 2**20
"""Of JSON in one record."""
LARGEST_TABLE = 2**30
"""Bytes of all records of a tag, unpacked."""
MOST_ENTRIES = 1_000
"""Of a list or an object that the tab and the report show entry by entry, such as notes and events."""
LONGEST_NAME = 500
LONGEST_TEXT = 2_000
LARGEST_NUMBER = float(np.finfo(np.float32).max)
"""Of what was computed in float32. Squares of it are finite in float64."""

FAR_STEPS = f"negative, or beyond {LARGEST_STEP:,}"


def is_step(step: object) -> bool:
    """Whether it can count training steps."""
    return isinstance(step, int | np.integer) and 0 <= int(step) <= LARGEST_STEP


def is_time(seconds: float) -> bool:
    """Whether it is a wall time of this calendar."""
    return 0 < seconds < LATEST


def with_steps(points: Sequence[Any], what: str) -> tuple[list[Any], tuple[str, ...]]:
    """The points whose step can be one, and a sentence on the others.

    Args:
        points: ``TensorDatum`` values.
        what: what they are, in the plural.
    """
    kept = [point for point in points if is_step(point.step)]
    left_out = len(points) - len(kept)
    return kept, (f"{left_out:,} {what} were left out: their steps are {FAR_STEPS}.",) * bool(left_out)


def wall_times(points: Sequence[Any]) -> tuple[NDArray[np.float64], int]:
    """The wall times of points, [T], and how many are no times; the last one before stands for such a one.

    Where none before it is a time, the first after it stands for it, and 0 where there is none at all.
    """
    times = np.array([point.wall_time for point in points], np.float64)
    good = np.array([is_time(t) for t in times.tolist()], np.bool_)
    if good.all():
        return times, 0
    if not good.any():
        return np.zeros(len(times)), len(times)
    last = np.maximum.accumulate(np.where(good, np.arange(len(times)), -1))
    return times[np.where(last < 0, good.argmax(), last)], int(np.count_nonzero(~good))


def thinned(points: Sequence[Any], size: int) -> list[Any]:
    """Evenly spaced points, the last among them, so many that their tables of this size fit into ``LARGEST_TABLE``."""
    most = max(1, LARGEST_TABLE // max(1, size))
    if len(points) <= most:
        return list(points)
    chosen = np.unique(np.linspace(len(points) - 1, 0, most).round().astype(np.int64))
    return [points[i] for i in chosen]


def shortened(text: str, longest: int) -> str:
    """The text, cut at a length."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def listed(names: Iterable[str]) -> str:
    """Names in a sentence, the first of many."""
    first = sorted(set(names))
    return ", ".join(first[:5]) + (", ..." if len(first) > 5 else "")
