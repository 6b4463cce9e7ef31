"""Training differs from inference by dropout or another training-only layer, not by BatchNorm."""

from __future__ import annotations

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.lag import LARGE_DISTANCE, LayerTable
from tb_bnlens.analysis.loss_gap import WARNING_HARM, WINDOW, Losses
from tb_bnlens.rules import judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_evaluated, passed

META = Meta(
    id="dropout-gap",
    title="Little is due to dropout and other training-only layers",
    failure_title="The difference is dropout, not BatchNorm",
    description="Dropout, noise and augmentation layers run in training only. What they do to the loss is the training "
    "loss minus batch mode with them off, at the same weights and batch.",
    requires=("losses", "layers"),
)

NOTE_HARM = 0.25
"""A quarter of the loss: what makes one look for a reason. It is a note whatever its size, since it is meant."""


def check(losses: Losses, layers: LayerTable) -> Finding:
    """Measure training - batch, or training - inference where every layer is frozen."""
    constant = layers.is_state("frozen", "inference_mode")
    # In training frozen layers keep their statistics, so batch mode is no fair rival where those are off.
    mismatch = constant & (layers.distance >= LARGE_DISTANCE)
    all_constant = len(layers.names) > 0 and bool(constant.all())
    if mismatch.any() and not all_constant:
        return not_evaluated("Frozen layers that do not fit the data hide what dropout does.")
    rival = "inference" if all_constant or not layers.names else "batch"
    gap = losses.lasting_gap("training", rival)
    if not gap.known:
        return not_evaluated("It takes the loss in training mode.")
    training, other = (robust.median(losses.course[kind][-WINDOW:]) for kind in ("training", rival))
    numbers = f"training {judging.number(training)}, without them {judging.number(other)}"
    if not gap.at_least(NOTE_HARM):
        return passed(f"On the same batch and weights: {numbers}.")
    batchnorm = losses.gap("inference", "batch")
    if batchnorm.at_least(WARNING_HARM) and not batchnorm.value < gap.value:
        return passed(f"Dropout adds to the training loss ({numbers}); the gap is another matter.")
    return Finding(
        Status.FAIL,
        f"Dropout and other training-only layers raise the training loss by {judging.number(gap.value)} on the same "
        f"batch and "
        f"weights ({numbers}). BatchNorm makes {judging.number(batchnorm.value)} of it.",
        Severity.INFO,
        last_step=losses.step,
        evidence={
            "dropout": Evidence(f"training - {rival}", gap.value, NOTE_HARM * losses.scale),
            "batchnorm": Evidence("inference - batch", batchnorm.value),
        },
        ruled_out=(("BatchNorm", f"inference - batch is {judging.number(batchnorm.value)}"),),
        next="Nothing is to be mended: compare evaluate() with evaluate(), not with what fit shows.",
    )
