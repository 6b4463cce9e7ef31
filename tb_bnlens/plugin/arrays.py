"""The arrays that the routes send of a record, by name, as ``wire.frame`` takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens import metadata
from tb_bnlens.history import Channels, History
from tb_bnlens.plugin.estimates import DERIVED

Arrays = Iterator[tuple[str, NDArray[Any]]]


def losses(history: History) -> Arrays:
    """Every loss row that was measured in any probe, [P]."""
    yield "steps", history.loss_steps.astype(np.float64)
    yield "wall_times", history.loss_wall_times
    for p, probe in enumerate(metadata.PROBES):
        for m, row in enumerate(metadata.LOSS_ROWS):
            values = history.losses[:, p, m]
            if not np.isnan(values).all():
                yield f"{probe}/{row}", values


def series(history: History, row: str) -> Arrays:
    """One row of all layers over the records, [T, L]; a row of ``metadata.LAYER_ROWS`` or of ``DERIVED``."""
    yield "steps", history.steps.astype(np.float64)
    yield "wall_times", history.wall_times
    yield "values", (DERIVED[row](history) if row in DERIVED else history.row(row))


def layer(history: History, index: int, rows: Sequence[str] = metadata.LAYER_ROWS) -> Arrays:
    """Rows of one layer over the records, [T]."""
    yield "steps", history.steps.astype(np.float64)
    yield "wall_times", history.wall_times
    for name in rows:
        yield name, history.row(name)[:, index]


def channels(found: Channels) -> Arrays:
    """The per-channel snapshots of one layer, [S, 4, C]."""
    yield "steps", found.steps.astype(np.float64)
    yield "values", found.values
