"""The gap itself: the same batch and weights, batch statistics against moving statistics."""

from __future__ import annotations

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.parts import MOST
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import against_batch, loss, modes, no_losses
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words

ONE_MOMENT = "A check looks at one moment, which does not tell the cause. Record the training to see what changes."


def failed(f: Facts, d: Decision) -> Said:
    """The gap and its two parts."""
    recalibrated = loss(f, f.typical("recalibrated"))
    noise = f.losses.gap("recalibrated", "batch") if f.parts is None else f.drift_left
    # A check has not looked for causes that show over time, such as drift.
    unexplained = ONE_MOMENT if f.checked else "No known cause explains it."
    return Said(
        f"With the same weights and batch, {against_batch(f)}. {unexplained}",
        reason=f"{unexplained} With recalibrated statistics the loss is {recalibrated}.",
        evidence={
            "gap": Evidence("inference - batch", f.gap.value, f.warning_loss),
            "stale": Evidence("part from stale statistics (inference - recalibrated)", f.stale.value),
            "noise": Evidence("part from batch noise (recalibrated - batch)", noise.value),
            "uncertainty": Evidence("standard error of the gap", f.gap.uncertainty),
        },
        rescue=code.rescue(f, d.severity),
        rescued=f.rescued,
        fix=code.RECALIBRATE if f.parts is None else "",
        next=_what_is_left(f),
    )


def _what_is_left(f: Facts) -> str:
    """What the intervention has told, or what it will tell."""
    if not f.stale.known:
        return "If recalibrated statistics close the gap, they were stale. If not, look at the batches."
    if f.stale.significant and f.stale.value >= MOST * f.gap.value:
        return "Recalibrated statistics close most of the gap, so the moving statistics are stale."
    return "Recalibrated statistics leave most of the gap, so look at the batches."


WORDS = Words(
    name="a gap on training data",
    title="Inference agrees with batch statistics",
    failure_title="Inference is worse than with batch statistics",
    description="Both losses are measured on one batch with one set of weights and dropout off, so only BatchNorm "
    "differs. The gap splits into stale statistics (inference - recalibrated) and batch noise (recalibrated - batch).",
    absent="The model has no BatchNorm layers.",
    unknown=no_losses,
    passed=lambda f, _: f"With the same weights and batch: {modes(f)}.",
    failed=failed,
)
