"""Training differs from inference by dropout or another training-only layer, not by BatchNorm."""

from __future__ import annotations

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.in_batches import TRAINING_ONLY_HARM
from tb_bnlens.diagnosis.words.phrases import LESS_BATCH, by_metric, loss, number
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def _rival(f: Facts) -> str:
    """The loss that training is held against, in words."""
    named = {
        "batch": "batch statistics",
        "batch_as_trained": "batch statistics, frozen layers on their own",
    }
    return named.get(f.dropout_rival, f.dropout_rival)


def _numbers(f: Facts) -> str:
    loss_of = f.lasting if f.measured is None else f.typical
    return f"{loss(f, loss_of('training'))} with them, {loss(f, loss_of(f.dropout_rival))} without"


def _basis(f: Facts) -> str:
    """What the difference is of. The median of differences between probes is not the difference of two medians."""
    return "median of the last probes" if f.measured is None else _numbers(f)


def unknown(f: Facts) -> str:
    """What is missing."""
    if f.dropout.known:
        return "Frozen layers that do not fit the data hide what dropout does."
    return "This takes the loss in training mode."


def _virtual(f: Facts) -> str:
    """Parts of a batch that the model normalizes apart in training alone are training-only too."""
    if f.parts is None or not f.in_torch or not f.parts.more_updates.any():
        return ""
    updates = round(robust.median(f.parts.updates_a_step[f.parts.more_updates]))
    return (
        f" The modules count {updates} updates a step: if training normalizes parts of a batch apart, as ghost batches "
        "do, the noise of so few rows is in that difference."
    )


def failed(f: Facts, _d: Decision) -> Said:
    """What training-only layers add, and what BatchNorm does."""
    rival = _rival(f), f.dropout_rival
    told = {"dropout": Evidence(f"training - {rival[0]}", f.dropout.value, f.losses.least(TRAINING_ONLY_HARM))}
    return Said(
        f"Dropout and other training-only layers raise the training loss by {number(f.dropout.value)} on the same "
        f"batch and weights ({_basis(f)}). BatchNorm accounts for {number(f.gap.value)}.{_virtual(f)}",
        evidence={
            **by_metric(f.dropout, told, f.measured, ("training", "training"), rival, None),
            "batchnorm": Evidence(LESS_BATCH, f.gap.value),
        },
        next="Nothing to fix. Compare evaluate() with evaluate(), not with the loss that fit() prints."
        if f.in_keras
        else "Nothing to fix. Compare losses in eval mode with each other, not with those of training mode.",
    )


WORDS = Words(
    name="dropout",
    title="Dropout and other training-only layers add little",
    failure_title="The difference is dropout, not BatchNorm",
    description="Dropout, noise and augmentation layers run in training only. Their effect is the training loss minus "
    "the loss with batch statistics and these layers off, with the same weights and batch.",
    absent="There is no loss in training mode.",
    unknown=unknown,
    passed=lambda f, _: f"Training loss on the same batch and weights is {_numbers(f)} (training-only layers).",
    failed=failed,
)
