"""Moving statistics fit the training data and not the validation data."""

from __future__ import annotations

import numpy as np

from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.analysis.loss_gap import WARNING_HARM, Losses
from tb_bnlens.rules import fixes, judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_applicable, passed

META = Meta(
    id="validation-shift",
    title="The moving statistics fit the validation data",
    failure_title="Validation data have other statistics than training data",
    description="Inference agrees with batch mode on training data and not on validation data: the validation data are "
    "distributed or preprocessed in another way, and normalizing them with their own batch helps.",
    requires=("losses", "validation", "layers"),
    explains=("overfitting",),
)


def check(losses: Losses, validation: Losses, layers: LayerTable) -> Finding:
    """Compare inference - batch on the two data."""
    if validation.step is None or not validation.evaluated or not losses.evaluated:
        return not_applicable("No validation data were passed to the recorder.")
    here, there = losses.gap("inference", "batch"), validation.gap("inference", "batch")
    numbers = (
        f"on validation data inference gives {judging.number(validation.typical['inference'])} and batch mode "
        f"{judging.number(validation.typical['batch'])}"
    )
    if here.at_least(WARNING_HARM):
        return passed("The modes differ on training data already, which comes first.")
    severity = judging.severity_of(there)
    if severity in (Severity.NONE, Severity.INFO):
        return passed(f"{numbers[0].upper()}{numbers[1:]}.")
    far = ~np.isnan(layers.validation_distance) & (
        layers.validation_distance > 2 * np.fmax(layers.distance, layers.tolerance)
    )
    headline = (
        f"The moving statistics fit the training data (inference {judging.number(losses.typical['inference'])}, "
        f"batch mode "
        f"{judging.number(losses.typical['batch'])}) but not the validation data: {numbers}."
    )
    return Finding(
        Status.FAIL,
        headline,
        severity,
        layers=judging.layers_of(far),
        last_step=validation.step,
        evidence={
            "validation": Evidence(
                "inference - batch on validation data", there.value, WARNING_HARM * validation.scale
            ),
            "training": Evidence("inference - batch on training data", here.value),
            "distance": Evidence(
                "largest distance of validation batches", float(np.nanmax(layers.validation_distance, initial=0.0))
            ),
        },
        ruled_out=(("stale statistics", f"inference - batch is {judging.number(here.value)} on training data"),),
        fix="# Check first that validation data are preprocessed as training data are. Where they do come from "
        "elsewhere:\n"
        "# `data` from where the model is to be used.\n" + fixes.RECALIBRATE,
        next="On validation data inference agrees with batch mode.",
        headline=headline,
    )
