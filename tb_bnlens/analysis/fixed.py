"""What layers with constant statistics cost, apart from layers that lag and from batch noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.analysis.loss_gap import Gap, Losses
from tb_bnlens.metadata import REPLAY_MOMENTA, replay_row

Array = NDArray[np.float64]


def best_average(losses: Losses, kinds: tuple[str, ...] = ()) -> Array:
    """Least inference loss of any averaging of the batches' statistics, probe by probe over the window.

    Args:
        losses: of the run.
        kinds: kinds to take besides inference and the replays, e.g. ``("recalibrated",)``.
    """
    names = ["inference", *kinds, *(replay_row(m) for m in REPLAY_MOMENTA)]
    columns = [losses.window[name] for name in names if name in losses.window]
    if not columns:
        return np.empty(0)
    best = np.fmin.reduce(columns)
    present = losses.window.get("recalibrated_now", np.empty(0))
    if "recalibrated_now" in kinds and not np.isnan(present).all():
        # Where weights drift only this is no average of old ones, so probes without it would be judged too harshly.
        best = np.where(np.isnan(present), np.nan, best)
    return np.asarray(best)


def constant_part(losses: Losses, layers: LayerTable) -> Gap:
    """Loss gap that remains however the *updating* layers average: the part of those that do not update.

    Replays move only layers that update, so the best of them over batch mode is what constant layers cost, next
    to batch noise; the latter shows in ``recalibrated``, where every layer has the batches' statistics, and is
    taken off.
    """
    if not layers.updating.any():
        return losses.gap("inference", "batch")
    batch = losses.window.get("batch", np.empty(0))
    best = best_average(losses)
    noise = np.nan_to_num(np.clip(losses.window.get("recalibrated", batch) - batch, 0.0, None), posinf=0.0)
    if len(best) != len(batch):
        return Gap(np.nan, np.nan, np.nan)
    return losses.judge(best - batch - np.minimum(noise, np.clip(best - batch, 0.0, None)))
