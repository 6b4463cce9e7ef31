"""What layers with constant statistics cost, apart from layers that lag and from batch noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.analysis.loss_gap import Gap, Losses
from tb_bnlens.metadata import REPLAY_MOMENTUMS, replay_row

Array = NDArray[np.float64]


def best_average(losses: Losses, kinds: Sequence[str] = (), momentums: Sequence[float] = REPLAY_MOMENTUMS) -> Array:
    """Inference loss over the window of the averaging of batch statistics that does best there.

    One averaging is chosen for the whole window, by the median of its excess over batch mode: the least value of each
    probe would be that of the luckiest of a dozen noisy ones, and better than any of them is.

    Args:
        losses: of the run.
        kinds: kinds to take besides inference and the replays, e.g. ``("recalibrated",)``.
        momentums: replays to take.

    Returns:
        Losses, [<= WINDOW], NaN where that averaging was not measured; empty where none was.
    """
    names = ["inference", *kinds, *(replay_row(m) for m in momentums)]
    columns = [losses.window[name] for name in names if name in losses.window]
    batch = losses.window.get("batch", np.empty(0))
    present = losses.window.get("recalibrated_now", np.empty(0))
    if "recalibrated_now" in kinds and not np.isnan(present).all():
        # Where weights drift only this is no average of old ones, so probes without it would be judged too harshly.
        columns = [np.where(np.isnan(present), np.nan, column) for column in columns]
    known = [(robust.median(column - batch), column) for column in columns if len(column) == len(batch)]
    known = [(excess, column) for excess, column in known if not np.isnan(excess)]
    return min(known, key=lambda pair: pair[0])[1] if known else np.empty(0)


def constant_part(losses: Losses, layers: LayerTable) -> Gap:
    """Loss gap that remains however the *updating* layers average: the part of the layers that do not update.

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
    return losses.judge_window(best - batch - np.minimum(noise, np.clip(best - batch, 0.0, None)))
