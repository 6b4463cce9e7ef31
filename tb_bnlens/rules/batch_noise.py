"""No fixed statistics serve the network: it has come to rely on each batch's own."""

from __future__ import annotations

import math

import numpy as np

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.batches import Batches
from tb_bnlens.analysis.fixed import best_average
from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.analysis.loss_gap import WARNING_HARM, Losses
from tb_bnlens.rules import judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_applicable, not_evaluated, passed

META = Meta(
    id="batch-noise",
    title="Statistics of many batches serve as well as the batch's own",
    failure_title="Batch statistics too noisy for fixed ones to replace",
    description="With few samples a channel, each batch's statistics differ from their mean, and a network that "
    "learned "
    "with them loses when they are fixed. No waiting cures it, nor does accumulating gradients: each small batch is "
    "still normalized alone.",
    requires=("losses", "layers", "batches"),
    explains=("train-inference-gap",),
)

NOISE_DISTANCE = 0.05
"""Single batches have to scatter this much about their mean, as a distance: below it three measured networks lost
10 to 30% at most (docs/design.md, Distance and loss), so batch noise cannot be the cause of a warning."""
ENLARGED = 32
"""Batch size that is advised at the least: the one from which Wu & He 2018 ("Group Normalization", figure 1) see
nothing more to gain."""
MOST_ENLARGED = 16.0
"""And no more than about this many times the batches there are; beyond that normalize without batches."""


def check(losses: Losses, layers: LayerTable, batches: Batches) -> Finding:
    """Compare the best loss of any averaged statistics with batch mode."""
    if not layers.names:
        return not_applicable("The model has no BatchNorm layers.")
    batch = losses.window.get("batch", np.empty(0))
    best = best_average(losses, ("recalibrated", "recalibrated_long", "recalibrated_now"))
    if not losses.gap("recalibrated", "batch").known or len(best) != len(batch):
        return not_evaluated("It takes the loss on recalibrated statistics.")
    part = losses.judge(best - batch)
    severity = judging.severity_of(part)
    numbers = (
        f"best with fixed statistics {judging.number(robust.median(best))}, batch mode "
        f"{judging.number(losses.typical['batch'])}"
    )
    if severity in (Severity.NONE, Severity.INFO):
        return passed(f"On the same batch: {numbers}.")
    if batches.unlike.any():
        return passed("The batches are not alike, which goes further than noise.")
    scatter = layers.scatter
    largest = float(np.nanmax(scatter, initial=0.0)) if not np.isnan(scatter).all() else math.nan
    if largest < NOISE_DISTANCE:
        return passed(f"Single batches scatter by {largest:.2g} only, too little to matter; {numbers}.")
    size = f"batches of {batches.size}" if batches.size else "these batches"
    headline = (
        f"No fixed statistics serve this network: with {size} a single batch's statistics scatter by "
        f"{judging.number(largest)} standard deviations in the noisiest layer ({numbers})."
    )
    noisy = scatter >= max(NOISE_DISTANCE, 0.5 * largest) if math.isfinite(largest) else layers.updating
    return Finding(
        Status.FAIL,
        headline,
        severity,
        layers=judging.layers_of(noisy),
        last_step=losses.step,
        evidence={
            "part": Evidence("loss that no averaging takes away", part.value, WARNING_HARM * losses.scale),
            "scatter": Evidence("scatter of a single batch (noisiest layer)", largest, NOISE_DISTANCE),
            "batch_size": Evidence("batch size", batches.size),
        },
        ruled_out=(
            ("stale statistics", f"recalibrated ones give {judging.number(losses.typical['recalibrated'])}"),
            ("drift", "replays at lower momenta do not help"),
        ),
        fix=_fix(batches.size, part.harm),
        next="Recalibrated statistics then give the batch-mode loss.",
        headline=headline,
    )


def _fix(size: int | None, harm: float) -> str:
    """Larger batches: what noise costs goes with its square, and so with 1/n, down to where it is no warning."""
    times = min(harm / WARNING_HARM, MOST_ENLARGED)
    wanted = max(ENLARGED, 2 ** math.ceil(math.log2(max(2.0, times * (size or 8)))))
    return (
        "# Larger batches where memory allows (gradient accumulation does not count); `data` is the tf.data pipeline:\n"
        f"data = data.unbatch().batch({wanted}, drop_remainder=True)\n"
        "# Or normalize without batches: keras.layers.GroupNormalization(groups=8) in place of each "
        "BatchNormalization.\n"
    )
