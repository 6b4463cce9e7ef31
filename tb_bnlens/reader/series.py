"""Points of one tag, in the order in which they were written, to one array over strictly increasing steps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.history import Floats
from tb_bnlens.metadata import FORECAST_POINTS, LAYER_ROWS, REPLAY_ROWS, STATES
from tb_bnlens.reader.bounds import MOST_LAYERS, is_step, is_time, listed, thinned, wall_times

NUMERIC = "fiub"
LARGEST_COUNT = 2.0**53
ROUNDING = 1e-3
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
"""Rows that count or point at something."""
SHARES = frozenset(("momentum",))
COSINES = frozenset(("lag_cosine",))
SIZES = frozenset(
    (
        *(f"{of}_{figure}" for of in ("distance", "error") for figure in ("p50", "p95", "max")),
        *("distance_rms", "mean_error_p95", "variance_error_p95", "batch_mean_rms", "moving_mean_rms"),
        *("batch_variance_gm", "moving_variance_gm", "noise_mean", "noise_variance", "between_within"),
        *("shift", "shift_noise", "since_min", "since_mean", "since_max", "epoch_end_distance", "start_distance"),
        *("validation_distance_rms", "replica_spread", "call_alternation"),
        *("overhead", "tracing_seconds", "step_seconds"),
    )
)
"""Rows of distances, spreads and times: not below zero, though they may be infinite."""


def range_of(row: str, *, layers: bool) -> tuple[float, float]:
    """Least and greatest value that a row can hold; other than a count, a value may be infinite.

    Args:
        row: its name.
        layers: whether it is one of ``LAYER_ROWS``, where a replay is a distance and not a loss.
    """
    if row == "state":
        return 0.0, len(STATES) - 1
    if row in COUNTS:
        return 0.0, math.nextafter(LARGEST_COUNT, 0.0)
    if row in SHARES:
        return 0.0, 1.0
    if row in COSINES:
        return -1.0 - ROUNDING, 1.0 + ROUNDING
    return (0.0 if row in SIZES or (layers and row in REPLAY_ROWS) else -math.inf), math.inf


Written = tuple[Any, NDArray[Any]]
"""A point and the tensor in it."""


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
    a branch of training that was abandoned, whatever its own tag has written since. A time or step that cannot be
    one says nothing, of a fence as of a point.
    """
    usable = sorted(fence for fence in fences if is_time(fence[0]) and is_step(fence[1]))
    if not usable or not points:
        return list(points)
    times = np.array([wall_time for wall_time, _ in usable])
    # The least step of all fences from this one on.
    least = np.minimum.accumulate(np.array([step for _, step in usable], np.float64)[::-1])[::-1]
    written = [p.wall_time if is_time(p.wall_time) else np.inf for p in points]
    after = np.searchsorted(times, written, side="right")
    limit = np.append(least, np.inf)[after]
    return [p for p, most in zip(points, limit.tolist(), strict=True) if p.step <= most]


def two_dimensional(points: Sequence[Any]) -> list[Written]:
    """The points that hold tables of numbers, with at least one column."""
    arrays = [(point, np.asarray(point.numpy)) for point in points]
    # Without columns, an empty record could claim any number of rows.
    return [(p, a) for p, a in arrays if a.ndim == 2 and a.shape[1] and a.dtype.kind in NUMERIC]


def still_current(tables: Sequence[Written]) -> list[Written]:
    """The tables that no later one goes back behind."""
    return [tables[i] for i in np.flatnonzero(current([point.step for point, _ in tables])).tolist()]


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
    tables = two_dimensional(points)
    if unusable := len(points) - len(tables):
        problems.append(f"{_count(unusable, what)} left out: not a two-dimensional table of numbers.")
    height = _height(tables, rows)
    if rows not in (None, height) and all(len(array) == height for _, array in tables):
        problems.append(f"Every {what} has {height} rows where {rows} were announced; what was written is shown.")
    fitting = [(point, array) for point, array in tables if len(array) == height]
    if other := len(tables) - len(fitting):
        problems.append(f"{_count(other, what)} left out: not of {height} rows, as of another network.")
    fitting = still_current(fitting)
    if height > MOST_LAYERS:
        problems.append(f"Every {what} has {height:,} rows; the first {MOST_LAYERS:,} are shown.")
        height = MOST_LAYERS
    shown = thinned(fitting, height * columns * np.dtype(np.float32).itemsize)
    if len(shown) < len(fitting):
        problems.append(f"{len(shown):,} of {len(fitting):,} {what}s are shown: all would not fit into memory.")
    values = np.full((len(shown), height, columns), np.nan, np.float32)
    with np.errstate(over="ignore"):
        for i, (_, array) in enumerate(shown):
            width = min(columns, array.shape[1])
            values[i, :, :width] = array[:height, :width]
    times, impossible = wall_times([point for point, _ in shown])
    if impossible:
        problems.append(f"{_count(impossible, what)} written at an impossible wall time; a neighbour's stands for it.")
    return Table(
        steps=np.array([point.step for point, _ in shown], np.int64),
        wall_times=times,
        values=values,
        problems=tuple(problems),
    )


def _height(tables: Sequence[Written], announced: int | None) -> int:
    """Rows that the tables have, or most of them where none has the number announced."""
    heights = Counter(len(array) for _, array in tables)
    if not heights or announced in heights:
        return announced or 0
    return heights.most_common(1)[0][0]


def without_impossible(table: Table, rows: Sequence[str], limits: Mapping[str, NDArray[np.float64]]) -> Table:
    """What a row cannot hold becomes NaN, so that all that follows may rely on it.

    Args:
        table: of layers or losses.
        rows: names of its columns.
        limits: row -> greatest value for each layer, [L], where the manifest tells one.
    """
    layers = rows is LAYER_ROWS
    ranges = np.array([range_of(row, layers=layers) for row in rows])
    bounded = np.flatnonzero(np.isfinite(ranges).any(axis=1)).tolist()
    # One copy of the few columns: each on its own goes through all of the memory that the table lies in.
    values = table.values[..., bounded]
    greatest = np.broadcast_to(ranges[bounded, 1], values.shape[1:]).copy()
    for row, most in limits.items():
        at = bounded.index(rows.index(row))
        greatest[:, at] = np.minimum(greatest[:, at], most)
    with np.errstate(invalid="ignore"):
        wrong = ~((values >= ranges[bounded, 0]) & (values <= greatest)) & ~np.isnan(values)
    if not wrong.any():
        return table
    table.values[..., bounded] = np.where(wrong, np.nan, values)
    names = listed(rows[bounded[i]] for i in np.flatnonzero(wrong.any(axis=(0, 1))))
    count = int(np.count_nonzero(wrong))
    sentence = f"{count:,} value{'s were' if count > 1 else ' was'} left out, which cannot be: {names}."
    return replace(table, problems=(*table.problems, sentence))


def _count(number: int, what: str) -> str:
    return f"1 {what} was" if number == 1 else f"{number:,} {what}s were"
