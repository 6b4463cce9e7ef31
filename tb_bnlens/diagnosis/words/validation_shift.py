"""Moving statistics fit the training data and not the validation data."""

from __future__ import annotations

import numpy as np

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.loss_gap import WARNING_HARM
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import modes, number
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def _there(f: Facts) -> str:
    there = f.validation.typical
    return f"inference {number(there.get('inference'))}, batch statistics {number(there.get('batch'))}"


def failed(f: Facts, _d: Decision) -> Said:
    """The gap on both data."""
    return Said(
        f"The moving statistics fit the training data ({modes(f)}) but not the validation data ({_there(f)}).",
        evidence={
            "validation": Evidence(
                "inference - batch on validation data", f.validation_gap.value, WARNING_HARM * f.validation.scale
            ),
            "training": Evidence("inference - batch on training data", f.gap.value),
            "distance": Evidence(
                "largest distance of validation batches", float(np.nanmax(f.layers.validation_distance, initial=0.0))
            ),
        },
        fix="# Check first that validation data are preprocessed as training data are. If they come from elsewhere,\n"
        "# `data` is from where the model will be used.\n" + code.RECALIBRATE,
        next="On validation data, inference agrees with batch statistics.",
    )


WORDS = Words(
    name="a shift of the validation data",
    title="The moving statistics fit the validation data",
    failure_title="Validation data have other statistics than training data",
    description="Inference agrees with batch statistics on training data and not on validation data. The validation "
    "data are distributed or preprocessed differently, and normalizing them with their own batch helps.",
    absent="There are no losses on validation data.",
    passed=lambda f, _: f"On validation data: {_there(f)}.",
    failed=failed,
)
