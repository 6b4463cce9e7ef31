"""Per-channel snapshots of one layer."""

from __future__ import annotations

import numpy as np
from tensorboard.context import RequestContext
from tensorboard.data import provider

from tb_bnlens import metadata
from tb_bnlens.history import Channels
from tb_bnlens.reader.bounds import MOST_CHANNELS, with_steps
from tb_bnlens.reader.points import read_points
from tb_bnlens.reader.runs import Run, find_run
from tb_bnlens.reader.series import still_current, two_dimensional


def read_channels(
    data: provider.DataProvider,
    experiment_id: str,
    run: str | Run,
    layer: int,
    *,
    ctx: RequestContext | None = None,
) -> Channels:
    """The per-channel snapshots of one layer, empty where none was written.

    Raises:
        RunNotFound: no run of that name holds a record.
        Unreadable: the provider fails.
    """
    ctx = ctx or RequestContext()
    found = run if isinstance(run, Run) else find_run(data, experiment_id, run, ctx=ctx)
    tag = metadata.channels_tag(layer)
    points, _ = read_points(data, experiment_id, ctx, found.run_id, metadata.CHANNELS_PLUGIN_NAME, [tag])
    rows = len(metadata.CHANNEL_ROWS)
    usable, _ = with_steps(points.get(tag, []), "snapshots")
    tables = [(point, array) for point, array in two_dimensional(usable) if array.shape[1] <= MOST_CHANNELS]
    width = tables[-1][1].shape[1] if tables else 0
    tables = still_current([(p, a) for p, a in tables if a.shape[0] >= rows and a.shape[1] == width])
    values = np.empty((len(tables), rows, width), np.float32)
    with np.errstate(over="ignore"):
        for i, (_, array) in enumerate(tables):
            values[i] = array[:rows]
    return Channels(steps=np.array([point.step for point, _ in tables], np.int64), values=values)
