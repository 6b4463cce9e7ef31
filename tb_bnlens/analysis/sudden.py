"""Statistics that leap: moving ones that something wrote to, and those of batches, which leap there and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.history import History

Mask = NDArray[np.bool_]

FARTHER = 10.0
"""A leap is this many times the farthest window of the other records in the second half, and as many standard
deviations. In 123 small trainings without one the ratio was 2.4 at most; in three with one it was 130."""


@dataclass(frozen=True)
class Leap:
    """The last leap of each layer that has one."""

    layers: Mask
    """Layers whose moving statistics still hold it, [L]."""
    after: int = 0
    """It happened after this step..."""
    by: int = 0
    """...and by this one."""
    amount: float = 0.0
    """How much farther the layer that moved most is off than before, in batch standard deviations."""


def leap(history: History, layers: LayerTable) -> Leap:
    """Find a leap in the second half of the record that the moving statistics still hold.

    A window between two snapshots is what the moving average must have met to get from one to the other. Where
    something else wrote to it, that is absurd: ``1 / (1 - momentum)`` times the change.
    """
    found = np.zeros(len(layers.names), bool)
    farthest, distance = history.row("since_max"), history.row("distance_rms")
    half = len(history.steps) // 2
    if half < 2 or farthest.shape[1] != len(found):
        return Leap(found)
    at, amount = half, 0.0
    for layer in range(len(found)):
        late = np.nan_to_num(farthest[half:, layer])
        index = int(np.argmax(late))
        usual = float(np.max(np.delete(late, index), initial=0.0))
        record = half + index
        rise = float(distance[record, layer] - distance[record - 1, layer])
        per_step = float(np.nan_to_num(layers.updates_per_step[layer], nan=1.0))
        updates = float(history.steps[-1] - history.steps[record]) * per_step
        held = float(layers.beta[layer]) ** updates > layers.tolerance
        if late[index] > FARTHER * max(usual, 1.0) and rise > layers.tolerance and held:
            found[layer] = True
            if rise > amount:
                at, amount = record, rise
    return Leap(found, int(history.steps[at - 1]), int(history.steps[at]), amount)


def comes_and_goes(history: History, layers: LayerTable) -> Mask:
    """Layers that agree with the latest batches at one record and are far off at others, up to the last, [L].

    Weights do not move batch statistics that far and back. A few batches do that are unlike all others: while one of
    them is among the latest, these agree with the moving statistics that it has set, and ordinary ones never do.
    Only the second half of the record counts.
    """
    error = history.row("error_p95")[len(history.steps) // 2 :]
    found = np.zeros(len(layers.names), bool)
    if error.shape[1] != len(found):
        return found
    for layer, course in enumerate(error.T):
        known = course[np.isfinite(course)]
        if len(known) >= 3:
            around = np.minimum(np.maximum.accumulate(known), known[-1])
            found[layer] = bool((around > FARTHER * np.maximum(known, layers.tolerance)).any())
    return found
