"""The gap itself: the same batch and weights, batch statistics against moving statistics."""

from __future__ import annotations

import math

import numpy as np

from tb_bnlens.analysis.loss_gap import WARNING_HARM, Losses
from tb_bnlens.history import History
from tb_bnlens.rules import fixes, judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_applicable, not_evaluated, passed

META = Meta(
    id="train-inference-gap",
    title="Inference agrees with training mode",
    failure_title="Inference is worse than training mode on the same batch",
    description="Both losses are measured on one batch at one set of weights, dropout off; only BatchNorm differs. "
    "Split into stale statistics (inference - recalibrated) and batch noise (recalibrated - batch).",
    requires=("losses", "history"),
)


def check(losses: Losses, history: History) -> Finding:
    """Judge inference - batch over the last probes."""
    if not history.manifest.layers:
        return not_applicable("The model has no BatchNorm layers.")
    gap = losses.gap("inference", "batch")
    if not gap.known:
        reasons = " ".join(dict.fromkeys(losses.not_evaluated.values()))
        return not_evaluated(reasons or "No probe has measured both losses yet.")
    inference, batch = losses.typical["inference"], losses.typical["batch"]
    numbers = f"inference {judging.number(inference)} against batch mode {judging.number(batch)}"
    severity = judging.severity_of(gap)
    if severity in (Severity.NONE, Severity.INFO):
        return passed(f"At the same weights and batch: {numbers}.")
    much = judging.worse(inference, batch, losses.natural_zero)
    stale, noise = losses.gap("inference", "recalibrated"), losses.gap("recalibrated", "batch")
    return Finding(
        Status.FAIL,
        f"At the same weights and batch inference is {much}: {numbers}.",
        severity,
        first_step=_since(history, losses),
        last_step=losses.step,
        evidence={
            "gap": Evidence("inference - batch", gap.value, WARNING_HARM * losses.scale),
            "stale": Evidence("of it stale statistics (inference - recalibrated)", stale.value),
            "noise": Evidence("of it batch noise (recalibrated - batch)", noise.value),
            "uncertainty": Evidence("standard error of the gap", gap.uncertainty),
        },
        fix=fixes.RECALIBRATE,
        next="Where recalibrated statistics close the gap they were stale; where they do not, look at the batches.",
    )


def _since(history: History, losses: Losses) -> int | None:
    """Step from which on the gap has been a warning at every probe."""
    with np.errstate(invalid="ignore"):
        gap = (history.loss("inference") - history.loss("batch")).astype(np.float64)
    fine = np.flatnonzero(gap < WARNING_HARM * losses.scale)
    start = int(fine[-1]) + 1 if len(fine) else 0
    later = [int(s) for s, g in zip(history.loss_steps[start:], gap[start:], strict=True) if not math.isnan(g)]
    return later[0] if later else None
