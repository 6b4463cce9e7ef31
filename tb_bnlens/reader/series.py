"""Points of one tag, in the order in which they were written, to one array over strictly increasing steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.history import Floats
from tb_bnlens.metadata import FORECAST_POINTS, STATES

NUMERIC = "fiub"
LARGEST_COUNT = 2.0**53
COUNTS = frozenset(
    (
        "state",
        "updates",
        "pool_updates",
        "noise_updates",
        "shift_span",
        "channels_nonfinite",
        "window_nonfinite",
        "channels_collapsed",
        "worst_channel",
        "since_max_step",
        "batch_size",
        "short_updates",
        "long_updates",
        *(f"forecast_step_{i}" for i in range(FORECAST_POINTS)),
    )
)
"""Rows that count or point at something; all others may hold any number."""


@dataclass(frozen=True)
class Table:
    """Records of a tag: ``values`` is [T, rows, columns], float32, NaN where a record had no such column."""

    steps: NDArray[np.int64]
    wall_times: NDArray[np.float64]
    values: Floats
    problems: tuple[str, ...] = ()


def current(steps: Sequence[int]) -> NDArray[np.bool_]:
    """Which points still hold: every point that no later one goes back behind, [T].

    Where training was resumed from an earlier step, TensorBoard's loaders differ: one drops what the new run
    overwrites, the other keeps both branches in file order.

    Example:
        >>> current([0, 1, 2, 3, 2, 3, 4]).tolist()
        [True, True, False, False, True, True, True]
    """
    array = np.asarray(steps, np.int64)
    if not len(array):
        return np.zeros(0, np.bool_)
    least_after = np.append(np.minimum.accumulate(array[::-1])[::-1][1:], np.iinfo(np.int64).max)
    return np.asarray(array < least_after)


def before_fences(points: Sequence[Any], fences: Iterable[tuple[float, int]]) -> list[Any]:
    """Points without the ones that a restart has invalidated.

    A fence is the (wall time, step) of a manifest. A point that was written earlier and has a later step comes from
    a branch of training that was abandoned, whatever its own tag has written since.
    """
    for wall_time, step in fences:
        points = [p for p in points if p.wall_time >= wall_time or p.step <= step]
    return list(points)


def to_table(points: Sequence[Any], rows: int | None, columns: int, what: str) -> Table:
    """Stack the two-dimensional tensors of a tag.

    Args:
        points: ``TensorDatum`` values in the order of writing.
        rows: expected first dimension. Where every record has one other first dimension, the records win; where
            they differ from each other, records that do not fit are left out. None takes the most common one.
        columns: named positions of the last dimension; more are ignored, fewer are filled with NaN.
        what: name of the record in sentences, e.g. ``"layer record"``.
    """
    problems: list[str] = []
    tables = []
    for point in points:
        array = np.asarray(point.numpy)
        # Without columns, an empty record could claim any number of rows.
        if array.ndim == 2 and array.shape[1] and array.dtype.kind in NUMERIC:
            tables.append((point, array))
    if unusable := len(points) - len(tables):
        problems.append(f"{_count(unusable, what)} left out: not a two-dimensional table of numbers.")
    shapes = Counter(array.shape[0] for _, array in tables)
    if shapes and rows not in shapes:
        (common, _), *others = shapes.most_common()
        if rows is not None and not others:
            problems.append(f"Every {what} has {common} rows where {rows} were announced; what was written is shown.")
        rows = common
    fitting = [(point, array) for point, array in tables if array.shape[0] == rows]
    if other := len(tables) - len(fitting):
        problems.append(f"{_count(other, what)} left out: not of {rows} rows, as of another network.")
    keep = current([point.step for point, _ in fitting])
    fitting = [pair for pair, kept in zip(fitting, keep, strict=True) if kept]
    values = np.full((len(fitting), rows or 0, columns), np.nan, np.float32)
    with np.errstate(over="ignore"):
        for i, (_, array) in enumerate(fitting):
            width = min(columns, array.shape[1])
            values[i, :, :width] = array[:, :width]
    return Table(
        steps=np.array([point.step for point, _ in fitting], np.int64),
        wall_times=np.array([point.wall_time for point, _ in fitting], np.float64),
        values=values,
        problems=tuple(problems),
    )


def without_impossible(table: Table, rows: Sequence[str]) -> Table:
    """Counts, steps and positions that cannot be ones become NaN, so that all that follows may rely on them."""
    columns = [i for i, name in enumerate(rows) if name in COUNTS]
    limits = np.array([len(STATES) if rows[i] == "state" else LARGEST_COUNT for i in columns])
    # One copy of the few columns: each on its own goes through all of the memory that the table lies in.
    counts = table.values[..., columns]
    with np.errstate(invalid="ignore"):
        wrong = ~((counts >= 0) & (counts < limits)) & ~np.isnan(counts)
    impossible = int(np.count_nonzero(wrong))
    if not impossible:
        return table
    table.values[..., columns] = np.where(wrong, np.nan, counts)
    sentence = f"{impossible} counts were left out: negative, infinite or too large."
    return replace(table, problems=(*table.problems, sentence))


def _count(number: int, what: str) -> str:
    return f"1 {what} was" if number == 1 else f"{number} {what}s were"
