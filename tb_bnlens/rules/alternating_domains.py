"""One layer called several times a step on data that is not alike."""

from __future__ import annotations

import math

import numpy as np

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.analysis.loss_gap import Losses
from tb_bnlens.history import History
from tb_bnlens.rules import judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_applicable, passed

META = Meta(
    id="alternating-domains",
    title="Shared layers see data of one kind",
    failure_title="A shared layer averages two domains",
    description="A layer that is called on two kinds of data in one step (two towers, real and generated samples) "
    "normalizes each with its own batch in training, and both with one mean of the two at inference.",
    requires=("losses", "layers", "history"),
    explains=("train-inference-gap", "batch-noise", "unlike-batches"),
)

NOISE_FACTOR = 2.0
"""Calls on one kind of data differ by batch noise alone: a single batch of n samples reads a distance of
sqrt(1.5/n) at most (docs/design.md, Formulas), the difference of two sqrt(3/n); this is how many times that."""
NOTE_ALTERNATION = 1.0
"""Without harm it is worth a note from a whole batch standard deviation on."""


def check(losses: Losses, layers: LayerTable, history: History) -> Finding:
    """Compare the distance between the calls' batch statistics with what batch noise makes of it."""
    shared = ~np.isnan(layers.alternation)
    if not shared.any():
        return not_applicable("No layer is called more than once in a step.")
    noise = math.sqrt(3.0 / (history.manifest.batch_size or 8))
    unlike = shared & (layers.alternation > NOISE_FACTOR * noise)
    largest = robust.largest(layers.alternation)
    if not unlike.any():
        return passed(
            f"The calls of shared layers differ by {largest:.2g}, within {NOISE_FACTOR * noise:.2g} of batch noise."
        )
    severity = judging.severity_or_estimate(
        losses, judging.severity_of(losses.gap("inference", "batch")), layers.distance, unlike
    )
    if severity in (Severity.NONE, Severity.INFO):
        if largest < NOTE_ALTERNATION:
            return passed(f"The calls of shared layers differ by {largest:.2g}, and the loss does not feel it.")
        severity = Severity.INFO
    headline = (
        f"{judging.count(int(unlike.sum()))} called more than once a step on data that differ by up to "
        f"{judging.number(largest)} standard deviations; at inference one mean of both serves neither."
    )
    return Finding(
        Status.FAIL,
        headline + judging.estimate_note(losses),
        severity,
        layers=judging.layers_of(unlike),
        last_step=losses.step,
        evidence={"alternation": Evidence("distance between two calls", largest, NOISE_FACTOR * noise)},
        ruled_out=(("batch noise", f"it makes {judging.number(noise)} of two calls at most"),),
        fix="import keras\n\n"
        "# One layer for each kind of data, the other weights shared:\n"
        "norm_a, norm_b = keras.layers.BatchNormalization(), keras.layers.BatchNormalization()\n",
        next="Each layer's moving statistics agree with its own batches.",
        headline=headline,
    )
