"""Validation is worse than training in both modes: not a lag."""

from __future__ import annotations

from tb_bnlens.analysis.loss_gap import ERROR_HARM, WARNING_HARM, Losses
from tb_bnlens.rules import judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_applicable, passed

META = Meta(
    id="overfitting",
    title="Validation is near training",
    failure_title="Validation is worse than training, and not because of BatchNorm",
    description="Inference agrees with batch mode on training data, and on validation data too, yet validation is far "
    "above training: the network fits its training data better than others. Statistics that lag would show in both.",
    requires=("losses", "validation"),
)

BATCH_SPREADS = 3.0
"""Validation has to stand this many standard deviations of a training batch's loss above training."""


def check(losses: Losses, validation: Losses) -> Finding:
    """Compare the modes on both data before comparing the data."""
    if validation.step is None or not validation.evaluated or not losses.evaluated:
        return not_applicable("No validation data were passed to the recorder.")
    value, trained = validation.typical["inference"], losses.typical["inference"]
    numbers = (
        f"inference gives {judging.number(value)} on validation data and {judging.number(trained)} on training data"
    )
    modes = losses.gap("inference", "batch"), validation.gap("inference", "batch")
    if any(g.at_least(WARNING_HARM) for g in modes):
        return passed("BatchNorm's modes differ, which comes first.")
    # Two different batches, so the spread between batches comes in, which it does not in paired losses.
    if losses.harm(value - trained) < ERROR_HARM or value - trained < BATCH_SPREADS * losses.spread:
        return passed(f"{numbers[0].upper()}{numbers[1:]}.")
    return Finding(
        Status.FAIL,
        f"{numbers[0].upper()}{numbers[1:]}; in batch mode validation stands at "
        f"{judging.number(validation.typical['batch'])}. "
        "Both modes agree, so it is not BatchNorm: the network overfits, or the validation data are harder.",
        Severity.INFO,
        last_step=validation.step,
        evidence={
            "validation": Evidence(
                "validation inference - training inference", value - trained, ERROR_HARM * losses.scale
            ),
            "modes": Evidence("inference - batch on validation data", modes[1].value),
        },
        ruled_out=(("stale statistics", f"inference - batch is {judging.number(modes[0].value)} on training data"),),
        next="More data, regularization, or an earlier stop; BatchNorm is in order.",
    )
