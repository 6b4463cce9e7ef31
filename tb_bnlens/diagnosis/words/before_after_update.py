"""The loss that fit prints is measured before each update and averaged over the epoch; that of evaluate is not."""

from __future__ import annotations

import math

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.words.phrases import LESS_BATCH, loss, signed
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def _numbers(f: Facts) -> str:
    shown, updated = loss(f, f.lasting("fit_loss")), loss(f, f.lasting("updated"))
    return f"fit() prints {shown}; after the weight update the same batch gives {updated}"


def unknown(f: Facts) -> str:
    """What is missing."""
    return (
        "Training has diverged." if f.losses.diverged else "This takes the loss of fit() and a loss after the update."
    )


def failed(f: Facts, _d: Decision) -> Said:
    """The parts of the difference."""
    before = 0.0 if math.isnan(f.before_update.value) else f.before_update.value
    return Said(
        f"{_numbers(f)}. The weight update accounts for {signed(f.update.value)}, epoch averaging for "
        f"{signed(-f.averaging.value)} and BatchNorm for {signed(before)}.",
        evidence={
            "update": Evidence("loss after the update - before it", f.update.value),
            "averaging": Evidence("training loss now - loss of fit()", -f.averaging.value),
            "batchnorm": Evidence(LESS_BATCH, f.before_update.value),
            "dropout": Evidence("training - batch statistics", f.dropout_before_update.value),
        },
        fix="# Compare this with itself, not with the loss that fit() prints:\nmodel.evaluate(data)\n",
        next="A lower learning rate makes the update's part smaller."
        if abs(f.update.value) >= abs(f.averaging.value)
        else "The part of the averaging shrinks as the loss levels off.",
    )


WORDS = Words(
    name="the time of measurement",
    title="The weight update is not the main difference between fit() and evaluate()",
    failure_title="fit() and evaluate() measure at different times",
    description="fit() prints an average over the epoch of the loss before each update; evaluate() measures after it. "
    "On the same batch, the loss of fit() minus the training loss now is the averaging, and the loss after the update "
    "minus that before it is the update.",
    absent="There is no loss of fit().",
    unknown=unknown,
    passed=lambda f, _: f"{_numbers(f)}.",
    failed=failed,
)
