"""A momentum or trainable flag that the traced training step does not know of."""

from __future__ import annotations

import numpy as np

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.conditions import WINDOW_FACTOR
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import count, momentum_range, verb
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def passed(f: Facts, _d: Decision) -> str:
    """What the statistics show, or why they show nothing of the momentum."""
    if f.parts is not None and f.parts.unexplained.any():
        return "The recorded batch does not explain the updates, so they tell nothing about the momentum."
    several = f.as_several_calls & f.layers.updating
    if several.any():
        moving = f"{count(n := int(several.sum()))} {verb(n, 'move')} as with several updates a step"
        return f"{moving}: the step calls {'it' if n == 1 else 'them'} more than once."
    return "The moving statistics change as momentum and trainable say."


def failed(f: Facts, d: Decision) -> Said:
    """Which attribute does not hold, and in how many layers."""
    other, updating, thawed = f.off_momentum(WINDOW_FACTOR), f.frozen_after_trace, f.thawed
    parts, evidence = [], {}
    if other.any():
        shown, said = f.layers.effective[other], momentum_range(f, f.layers.momentum[other])
        parts.append(
            f"{count(int(other.sum()))} {verb(int(other.sum()), 'update')} with momentum "
            f"{momentum_range(f, np.round(shown, 4))} although the attribute says {said}"
        )
        evidence["effective"] = Evidence(
            "momentum that the statistics show",
            float(np.median(shown)),
            float(np.median(f.layers.momentum[other])),
            against="attribute",
        )
    if updating.any():
        parts.append(f"{count(int(updating.sum()))} with trainable=False still {verb(int(updating.sum()), 'update')}")
    if thawed.any():
        weights = ", and their weights are not trained" if f.left_out.any() else ""
        parts.append(
            f"{count(int(thawed.sum()))} with trainable=True {verb(int(thawed.sum()), 'stay')} constant{weights}"
        )
    return Said(
        "; ".join(parts) + ". The attribute was set after the training step was traced, and compile was not called.",
        evidence=evidence
        or {"layers": Evidence("layers that do not do what trainable says", len(d.layers), 0, against="expected")},
        # An optimizer keeps to the variables that it was built with, and unfreezing adds some.
        rescue=code.rescue(f, d.severity),
        rescued="recalibrated",
        fix="optimizer = model.optimizer.from_config(model.optimizer.get_config())\n"
        "# The next fit traces the step again. Add your metrics.\n"
        "model.compile(optimizer=optimizer, loss=model.loss)\n",
        next="The statistics move as the attributes say.",
    )


WORDS = Words(
    name="attributes set after tracing",
    title="Layers behave as their attributes say",
    failure_title="An attribute was set after the training step was traced",
    description="momentum and trainable are fixed in the training step when it is traced. Setting them later without "
    "compile changes the attribute and nothing else; the moving statistics show the old value.",
    absent="The model has no BatchNorm layers.",
    in_torch={"absent": "PyTorch reads momentum and mode at every step."},
    in_flax={"absent": "nnx.jit compiles a step again when momentum or mode have changed."},
    passed=passed,
    failed=failed,
)
