"""Batches that are not drawn alike: sorted by class, or domains that take turns."""

from __future__ import annotations

import numpy as np

from tb_bnlens.analysis.batches import ALIKE_LIMIT, LEAST_UPDATES, Batches
from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.analysis.loss_gap import Losses
from tb_bnlens.rules import judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_applicable, not_evaluated, passed

META = Meta(
    id="unlike-batches",
    title="Batches are drawn alike",
    failure_title="Batches are not alike",
    description="For samples drawn at random the variance of the batch means is at most the variance within, "
    "divided by "
    "the batch size. Batches sorted by class, or of several domains in turn, are far above it, and their mean fits "
    "none "
    "of them.",
    requires=("losses", "layers", "batches"),
    explains=("train-inference-gap", "drift", "batch-noise"),
)


def check(losses: Losses, layers: LayerTable, batches: Batches) -> Finding:
    """Compare the spread of the batch means with that of random draws; the loss says whether it matters."""
    if not layers.updating.any():
        return not_applicable("No layer's moving statistics are being updated.")
    if not batches.size or not (batches.judged & ~np.isnan(batches.neighbours)).any():
        return not_evaluated(f"It takes the batch size and {LEAST_UPDATES} pairs of batches that follow each other.")
    unlike = batches.unlike
    largest = float(np.nanmax(np.where(batches.judged, batches.neighbours, np.nan)))
    if not unlike.any():
        return passed(f"Neighbouring batches differ by {largest:.2g} times what random samples give at most.")
    severity = judging.severity_of_statistics(losses, losses.gap("inference", "batch"), layers.distance, unlike)
    if severity in (Severity.NONE, Severity.INFO):
        return passed("Batches are not alike, and the loss does not feel it.")
    alternate = batches.alternating.any()
    spread = batches.neighbours if alternate else batches.overall
    times = float(np.nanmax(spread[unlike]))
    how = (
        "from one batch to the next: domains or classes take turns"
        if alternate
        else "from one stretch to the next: the data look sorted"
    )
    headline = (
        f"Batches are not alike: their means vary {judging.number(times)} times as much as random samples would, "
        f"{how}. "
        "The moving statistics are a mean that fits none of them."
    )
    return Finding(
        Status.FAIL,
        headline + judging.estimate_note(losses),
        severity,
        layers=judging.layers_of(unlike),
        last_step=losses.step,
        evidence={
            "neighbours": Evidence(
                "variance of batch means over that of random samples, neighbours", largest, ALIKE_LIMIT
            ),
            "overall": Evidence(
                "the same, batches far apart", float(np.nanmax(batches.overall[unlike], initial=0.0)), ALIKE_LIMIT
            ),
        },
        ruled_out=(("batch noise", "random samples would stay under 1"),),
        fix="# Shuffle across the whole data set before batching; `data` is the tf.data pipeline of single batches:\n"
        "data = data.unbatch().shuffle(10_000).batch(32)\n"
        "# Domains that have to stay apart need a BatchNormalization layer each.\n",
        next="The ratio falls to 1 or below, and inference to batch mode.",
        headline=headline,
    )
