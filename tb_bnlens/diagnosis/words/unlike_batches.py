"""Batches that are not drawn from one distribution: sorted by class, or domains that alternate."""

from __future__ import annotations

import numpy as np

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import number
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def failed(f: Facts, d: Decision) -> Said:
    """How much the batch means vary, and over what stretch."""
    times, neighbours = f.spread_over_random, f.batches.neighbours[list(d.layers)]
    how = (
        "Consecutive batches differ, so domains or classes alternate."
        if f.batches.alternating
        else "Distant batches differ, so the data look sorted."
    )
    summary = (
        f"The batch means vary {number(times)} times as much as random samples would at most. {how} The moving "
        "statistics are a mean that fits none of the batches."
    )
    if d.severity is Severity.INFO and f.evaluated:
        summary += " The paired losses do not show it."
    return Said(
        summary,
        evidence={
            "overall": Evidence("variance of batch means over that of random samples, at most", times, f.batches.limit),
            "neighbours": Evidence("the same between consecutive batches", float(np.nanmax(neighbours, initial=0.0))),
        },
        fix=code.shuffle(f.batches.size) + "# Domains that have to stay apart need a BatchNormalization layer each.\n",
        next="The ratio falls to 1 or below, and inference loss to the loss with batch statistics.",
    )


WORDS = Words(
    name="batches that differ",
    title="Batches are drawn from one distribution",
    failure_title="Batches are not drawn from one distribution",
    description="For random samples the variance of the batch means is at most the variance within a batch divided by "
    "the batch size. Batches that are sorted by class or alternate between domains vary far more, and their mean fits "
    "none of them.",
    absent="No layer's moving statistics are being updated, or a batch is one sample.",
    unknown=lambda _: "This takes a probe that runs several batches with the same weights.",
    passed=lambda f, _: (
        f"The batch means vary {number(f.spread_over_random)} times as much as random samples would at most (limit "
        f"{number(f.batches.limit)})."
    ),
    failed=failed,
)
