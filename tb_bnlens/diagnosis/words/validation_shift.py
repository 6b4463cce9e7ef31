"""Moving statistics fit the training data and not the validation data."""

from __future__ import annotations

import numpy as np

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.loss_gap import NOTE_HARM
from tb_bnlens.diagnosis.compositions import constant_in_training
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.in_batches import validation_distance
from tb_bnlens.diagnosis.severity import Severity, of_gap
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import (
    LESS_BATCH,
    STANDARD,
    WARNING_FROM,
    by_metric,
    count,
    modes,
    names,
    number,
    verb,
)
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def _there(f: Facts) -> str:
    return f"inference {number(f.on_validation('inference'))}, batch statistics {number(f.on_validation('batch'))}"


def _passed(f: Facts, _d: Decision) -> str:
    as_there = f" On training data: {modes(f)}." if of_gap(f.validation_gap) > Severity.INFO else ""
    return f"On validation data: {_there(f)}.{as_there}"


def failed(f: Facts, _d: Decision) -> Said:
    """The gap on both data."""
    summary = f"The moving statistics fit the training data ({modes(f)}) but not the validation data ({_there(f)})."
    if of_gap(f.gap) > Severity.INFO:
        summary = (
            "Recalibrated statistics fit the training data and not the validation data (recalibrated "
            f"{number(f.on_validation('recalibrated'))}, batch statistics {number(f.on_validation('batch'))})."
        )
    elif f.gap.harm >= NOTE_HARM:
        summary = f"Inference loses more on validation data ({_there(f)}) than on training data ({modes(f)})."
    where = np.flatnonzero(constant_in_training(f))
    fix = (
        "# Check first that validation data are preprocessed as training data are. If they come from elsewhere,\n"
        "# `data` is from where the model will be used.\n"
    )
    if len(where):
        n, total = int(f.layers.collapsed[where].sum()), int(f.layers.channels[where].sum())
        summary += (
            f" In {names([f.layers.names[i] for i in where])}, {n:,} of {count(total, 'channel')} hardly "
            f"{verb(n, 'vary')} in training. Epsilon sets {'its' if n == 1 else 'their'} scale, so what varies there "
            "in validation is magnified."
        )
        fix = "# Leave out inputs that are constant in the training data, or train on data in which they vary.\n" + fix
    told = Evidence(
        f"{LESS_BATCH}, on validation data", f.validation_gap.value, f.validation_warning_loss, against=WARNING_FROM
    )
    return Said(
        summary,
        evidence={
            **by_metric(
                f.validation_gap,
                {"validation": told},
                f.measured_validation,
                ("inference", "inference"),
                ("batch statistics", "batch"),
            ),
            "training": Evidence(f"{LESS_BATCH}, on training data", f.gap.value),
            "distance": Evidence(
                "largest distance of validation batches",
                float(np.nanmax(validation_distance(f), initial=0.0)),
                None,
                STANDARD,
            ),
        },
        fix=fix + code.RECALIBRATE,
        next="On validation data, inference agrees with batch statistics.",
    )


WORDS = Words(
    name="statistics that do not fit the validation data",
    title="The moving statistics fit the validation data",
    failure_title="Validation data have other statistics than training data",
    description="Inference agrees with batch statistics on training data and not on validation data. The validation "
    "data are distributed or preprocessed differently, and normalizing them with their own batch helps.",
    absent="There are no losses on validation data.",
    passed=_passed,
    failed=failed,
)
