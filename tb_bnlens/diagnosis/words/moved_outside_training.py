"""Something else than the training step moves the statistics: a callback, a teacher, a loop over other data."""

from __future__ import annotations

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.parts import largest_amount
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import STANDARD, count, loss, number
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words

FIX = """\
# Find what calls the model between training steps (a callback, an estimate of uncertainty, a validation loop):
#   model(x, training=True)  ->  model(x, training=False)
# or keep the statistics around such calls:
norms = [layer for layer in model._flatten_layers() if hasattr(layer, "moving_variance")]
kept = [[v.numpy() for v in layer.non_trainable_variables] for layer in norms]
# ... the calls ...
for layer, values in zip(norms, kept):
    for variable, value in zip(layer.non_trainable_variables, values):
        variable.assign(value)
"""
FIX_IN_TORCH = """\
# Find what calls the model in training mode between training steps (an estimate of uncertainty, a validation loop):
#   call model.eval() before it and model.train() after it, or keep the statistics around such calls:
kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
# ... the calls ...
for name, buffer in model.named_buffers():
    buffer.copy_(kept[name])
"""
FIX_IN_FLAX = """\
# Find what calls the model in training mode between training steps (an estimate of uncertainty, a validation loop):
#   call model.eval() before it and model.train() after it, or keep the statistics around such calls:
from flax import nnx

kept = nnx.clone(nnx.state(model, nnx.BatchStat))
# ... the calls ...
nnx.update(model, kept)
"""
IN_BETWEEN = (
    "The running statistics before a training step are compared with those after the one before it. A call in training "
    "mode in between moves them toward whatever it is called on, and the training loss never shows that."
)


def _events(f: Facts) -> list[int]:
    return [e.step for e in f.manifest.events if e.kind == "outside"]


def _mode(f: Facts) -> str:
    return "with training=True" if f.in_keras else "in training mode"


def passed(f: Facts, d: Decision) -> str:
    """Whether anything was seen."""
    if d.where is not None:
        return "The statistics were changed between training steps, and the loss does not suffer."
    return "Nothing changed the moving statistics between training steps that they still hold."


def failed(f: Facts, d: Decision) -> Said:
    """When, by how much, and what it costs."""
    n, steps, rescued = len(d.layers), _events(f), f.typical("recalibrated")
    amount = largest_amount(f.manifest, "outside") if steps else f.leap.amount
    cured = f"With statistics of training batches, inference loss is {loss(f, rescued)}."
    much = f" by up to {number(amount)} batch standard deviations" if amount == amount else ""
    seen = (
        f"The moving statistics of {count(n)} change between training steps{much}, last seen at step {max(steps):,}. "
        f"Something outside of training, such as a callback, calls the model {_mode(f)} or sets them. "
        if steps
        else f"The moving statistics of {count(n)} moved all at once after step {f.leap.after:,} and by step "
        f"{f.leap.by:,}, {number(amount)} batch standard deviations away from the batches. Something outside of "
        "training, such as a callback, set them, or a single batch was far out. "
    )
    return Said(
        seen + cured,
        evidence={
            "times": Evidence("changes seen between training steps", count(len(steps), "time")),
            "amount": Evidence("largest change", amount, None, STANDARD),
            "recalibrated": Evidence("inference loss with statistics of training batches", rescued),
        },
        # Where training itself calls the model on other data, statistics of the recorded ones may ruin those.
        rescue="" if f.parts is not None and f.parts.more_updates.any() else code.RECALIBRATE,
        rescued="recalibrated",
        fix=code.told(f, keras=FIX, torch=FIX_IN_TORCH, flax=FIX_IN_FLAX),
        next="No change between training steps in the list of events.",
    )


WORDS = Words(
    name="statistics moved outside training",
    title="Only training steps move the statistics",
    failure_title="Statistics are changed outside of training steps",
    description="The moving statistics before a training step are compared with those after the one before it. A call "
    "with training=True in a callback moves them toward whatever it is called on, and the training loss never shows "
    "that.",
    in_torch={"description": IN_BETWEEN},
    in_flax={"description": IN_BETWEEN},
    absent="The model has no BatchNorm layers.",
    unknown=lambda _: "This takes a measurement on many batches at the end of training.",
    passed=passed,
    failed=failed,
)
