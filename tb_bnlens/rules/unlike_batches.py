"""Batches that are not drawn alike: sorted by class, or domains that take turns."""

from __future__ import annotations

import numpy as np

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.batches import Batches
from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.analysis.loss_gap import Losses
from tb_bnlens.rules import fixes, judging
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
    if batches.size == 1:
        return not_applicable("A batch is one sample: how samples differ and how batches do is the same.")
    if np.isnan(batches.overall).all():
        return not_evaluated("It takes a probe that runs several batches at the same weights.")
    unlike = batches.unlike
    times = robust.largest(batches.overall)
    if not unlike.any():
        return passed(f"The batch means vary {times:.2g} times as much as those of random samples do at most.")
    # What fits the mean of all batches may fail only where one kind follows another.
    gaps = losses.gap("inference", "batch"), losses.jump("inference", "batch")
    measured = min((judging.severity_of(g) for g in gaps), key=lambda s: s.rank)
    severity = judging.severity_or_estimate(losses, measured, layers.distance, unlike)
    severity = Severity.INFO if severity is Severity.NONE else severity
    how = (
        "from one batch to the next: domains or classes take turns"
        if batches.alternating
        else "from one stretch to the next: the data look sorted"
    )
    headline = (
        f"Batches are not alike: their means vary {judging.number(times)} times as much as random samples would, "
        f"{how}. "
        "The moving statistics are a mean that fits none of them."
    )
    if severity is Severity.INFO and losses.evaluated:
        headline += " The paired losses do not feel it."
    return Finding(
        Status.FAIL,
        headline + judging.estimate_note(losses),
        severity,
        layers=judging.layers_of(unlike),
        last_step=losses.step,
        evidence={
            "overall": Evidence("variance of batch means over that of random samples, at most", times, batches.limit),
            "neighbours": Evidence(
                "the same, of batches that follow each other", float(np.nanmax(batches.neighbours[unlike], initial=0.0))
            ),
        },
        ruled_out=(
            ("batch noise", "random samples stay under 1"),
            ("drift", "the batches were compared at the same weights"),
        ),
        fix=fixes.shuffle(batches.size) + "# Domains that have to stay apart need a BatchNormalization layer each.\n",
        next="The ratio falls to 1 or below, and inference to batch mode.",
        headline=headline,
    )
