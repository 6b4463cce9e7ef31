"""Validation is worse than training in both modes: not a lag."""

from __future__ import annotations

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.loss_gap import ERROR_HARM, NOTE_HARM, Gap
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.severity import Severity, of_gap
from tb_bnlens.diagnosis.words.phrases import LESS_BATCH, by_metric, number
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words

LABELS = (
    "First look at some validation rows with their labels: rows and labels may be shuffled apart, classes numbered in "
    "another order, or rows of one source be kept together in training only. Then: "
)


def _numbers(f: Facts) -> str:
    there, here = number(f.on_validation("inference")), number(f.typical("inference"))
    return f"Inference loss is {there} on validation data and {here} on training data"


def _excess(f: Facts, label: str, excess: Gap, kind: str) -> dict[str, Evidence]:
    """The difference beside the least that counts, or beside the metric that makes it count."""
    told = {"validation": Evidence(label, excess.value, f.losses.least(ERROR_HARM))}
    of = f.measured if f.measured_validation is not None else None
    return by_metric(excess, told, of, ("validation", kind), ("training", kind), None, f.measured_validation)


def failed(f: Facts, _d: Decision) -> Said:
    """Both data in both modes."""
    if of_gap(f.gap) > Severity.INFO:
        return _beside_a_gap(f)
    inference, batch = f.on_validation("inference"), f.on_validation("batch")
    # Validation batches of other shares of the classes have statistics that serve worse than those of training.
    worse = batch - inference > f.validation_warning_loss
    because = "Their own statistics do not help" if worse else "Both modes agree"
    if f.validation_gap.harm >= NOTE_HARM:
        because = "Their own statistics help too little to explain it"
    unlearned = inference > f.start_loss > f.typical("inference")
    what = "the network overfits, or the validation data are harder"
    if unlearned:
        what = (
            f"{what}, or their labels are wrong. The loss at the start of training was {number(f.start_loss)}, so "
            "validation is no better than knowing nothing"
        )
    return Said(
        f"{_numbers(f)}; with batch statistics it is {number(batch)} on validation data. {because}, so this is not "
        f"BatchNorm: {what}.",
        evidence={
            **_excess(f, "inference loss on validation data - on training data", f.validation_excess, "inference"),
            "modes": Evidence(f"{LESS_BATCH}, on validation data", f.validation_gap.value),
        },
        next=f"{LABELS if unlearned else ''}More data, regularization or an earlier stop.",
    )


def _beside_a_gap(f: Facts) -> Said:
    """Both data with statistics that fit."""
    there, here = number(f.on_validation("recalibrated")), number(f.typical("recalibrated"))
    return Said(
        f"With recalibrated statistics the loss is {there} on validation data and {here} on training data. So stale "
        "statistics do not explain validation: the network overfits, or the validation data are harder or of another "
        "kind.",
        evidence=_excess(f, "validation - training, both recalibrated", f.renewed_excess, "recalibrated"),
        next="More data, regularization or an earlier stop, or training data like those of validation.",
    )


WORDS = Words(
    name="overfitting",
    title="No sign of overfitting",
    failure_title="Validation is worse than training, but not because of BatchNorm",
    description="Inference agrees with batch statistics on training and on validation data, yet validation loss is far "
    "above training loss: the network fits its training data better than other data. Stale statistics would show in "
    "both.",
    absent="There are no losses on validation data.",
    passed=lambda f, _: f"{_numbers(f)}.",
    failed=failed,
)
