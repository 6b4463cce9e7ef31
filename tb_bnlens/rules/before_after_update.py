"""What fit shows is measured before each update and averaged over the epoch; what evaluate shows is not."""

from __future__ import annotations

import math

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.loss_gap import WARNING_HARM, WINDOW, Losses
from tb_bnlens.rules import judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_evaluated, passed

META = Meta(
    id="before-after-update",
    title="What fit shows is what evaluate gives",
    failure_title="fit's loss and evaluate's differ because of when they are measured",
    description="fit averages over the epoch the loss of each batch before the update that follows it; evaluate "
    "measures "
    "after. The parts are measured on the same batch: fit's figure minus the training loss now is the averaging, "
    "the loss "
    "after the update minus the one before is the update.",
    requires=("losses",),
)


def check(losses: Losses) -> Finding:
    """Split fit's figure minus the loss after the update, where neither BatchNorm nor dropout is to blame."""
    if losses.diverged:
        return not_evaluated("Training has diverged.")
    before, after, averaging = (
        losses.lasting_gap(a, b)
        for a, b in (
            ("inference", "batch"),
            ("updated", "inference"),
            ("fit_loss", "training"),
        )
    )
    if not (after.known and averaging.known):
        return not_evaluated("It takes fit's own figure and a loss after the update.")
    shown, updated = (robust.median(losses.course[kind][-WINDOW:]) for kind in ("fit_loss", "updated"))
    numbers = f"fit shows {judging.number(shown)}, after the update the same batch gives {judging.number(updated)}"
    spread = 2.0 * (after.uncertainty if after.uncertainty >= 0 else 0.0)
    # The averaging over an epoch differs in every run that still learns; the update does where it takes large steps.
    if losses.harm(abs(after.value)) < WARNING_HARM or abs(after.value) <= spread:
        return passed(f"At the last probes: {numbers}.")
    dropout = losses.lasting_gap("training", "batch")
    explained = max(abs(before.value) if before.known else 0.0, abs(dropout.value) if dropout.known else 0.0)
    if not max(abs(after.value), abs(averaging.value)) > explained:
        return passed(f"The difference has other parts, which are greater: {numbers}.")
    larger = "the update itself" if abs(after.value) >= abs(averaging.value) else "the averaging over the epoch"
    return Finding(
        Status.FAIL,
        f"{numbers[0].upper()}{numbers[1:]}. Of that the update makes {after.value:+.3g} and the averaging over the "
        f"epoch "
        f"{-averaging.value:+.3g}; BatchNorm makes {before.value if not math.isnan(before.value) else 0.0:+.3g}. "
        f"Mostly it is {larger}.",
        Severity.INFO,
        last_step=losses.step,
        evidence={
            "update": Evidence("after the update - before it", after.value),
            "averaging": Evidence("fit's figure - training loss now", averaging.value),
            "batchnorm": Evidence("inference - batch", before.value),
            "dropout": Evidence("training - batch", dropout.value),
        },
        ruled_out=(
            ("BatchNorm", f"inference - batch is {judging.number(before.value)}"),
            ("dropout", f"training - batch is {judging.number(dropout.value)}"),
        ),
        fix="model.evaluate(data)  # compare this with itself, not with what fit shows\n",
        next="A smaller learning rate makes the update's part smaller."
        if abs(after.value) >= abs(averaging.value)
        else "The averaging's part shrinks as the loss levels off.",
    )
