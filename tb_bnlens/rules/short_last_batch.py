"""The last batch of each epoch is so short that its statistics disturb the moving ones."""

from __future__ import annotations

import math

import numpy as np

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.lag import LARGE_DISTANCE, LayerTable, latest
from tb_bnlens.analysis.loss_gap import WARNING_HARM, Losses
from tb_bnlens.history import History
from tb_bnlens.rules import judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_applicable, passed

META = Meta(
    id="short-last-batch",
    title="The last batch of an epoch is like the others",
    failure_title="A short last batch disturbs the moving statistics",
    description="When the number of samples is no multiple of the batch size, each epoch ends in a short batch. One of "
    "a sample or two has next to no variance, enters the moving statistics with weight 1 - momentum, and does so right "
    "before validation.",
    requires=("losses", "layers", "history"),
    explains=("train-inference-gap", "momentum-too-low"),
)

OUTLIER = 3.0
"""The last batch is an outlier when its distance is this many times that of usual batches."""
SHARE = 0.05
"""Disturbance of the moving statistics, (1 - momentum) * distance, from which the loss can feel it: the foot of the
guide in docs/design.md, Distance and loss."""


def check(losses: Losses, layers: LayerTable, history: History) -> Finding:
    """Compare the last batch's distance with that of others, and the loss after it with the loss before."""
    last = latest(history, "epoch_end_distance")
    if np.isnan(last).all():
        return not_applicable("No epoch ended in a short batch.")
    usual = np.array([robust.median(column) for column in history.row("since_min")[len(history.steps) // 2 :].T])
    left = (1.0 - layers.beta) * last
    outlier = (last > OUTLIER * usual) & (left >= SHARE)
    if not outlier.any():
        return passed(f"The short last batch moves the statistics by {robust.largest(left):.2g} at most.")
    # The last probe comes right after the last batch of the last epoch; those before it mostly do not.
    difference = losses.course.get("inference", np.empty(0)) - losses.course.get("batch", np.empty(0))
    moved = math.nan
    if len(difference) >= 3 and losses.step == history.last_step:
        moved = float(difference[-1]) - robust.median(difference[:-1])
    harm = losses.harm(moved) if not math.isnan(moved) else 0.0
    if harm >= WARNING_HARM:
        severity = Severity.ERROR if harm >= 1.0 else Severity.WARNING
    elif not losses.evaluated and robust.largest(left) >= LARGE_DISTANCE:
        severity = Severity.WARNING
    else:
        severity = Severity.INFO
    headline = (
        f"The short last batch of an epoch is {judging.number(robust.largest((last / usual)[outlier]))} times as "
        f"far off as "
        f"others and moves the statistics of {judging.count(int(outlier.sum()))} by up to "
        f"{judging.number(robust.largest(left))}."
    )
    headline += (
        f" Inference is {judging.number(moved)} worse right after it." if severity is not Severity.INFO and harm else ""
    )
    return Finding(
        Status.FAIL,
        headline + judging.estimate_note(losses),
        severity,
        layers=judging.layers_of(outlier),
        last_step=history.last_step,
        evidence={
            "distance": Evidence(
                "distance of the last batch",
                robust.largest(last[outlier]),
                OUTLIER * robust.largest(usual[outlier]),
            ),
            "left": Evidence("of it in the moving statistics", robust.largest(left), SHARE),
            "moved": Evidence("inference right after it, over usual", moved, WARNING_HARM * losses.scale),
        },
        # Batching anew would leave Keras without the number of batches, which it warns of at each epoch.
        fix="data = data.take(data.cardinality() - 1)  # or, where it is made: "
        f".batch({history.manifest.batch_size or 32}, drop_remainder=True)\n",
        next="No epoch ends in a short batch, and inference after an epoch is as before it.",
        headline=headline,
    )
