"""A momentum or trainable flag that the traced training step does not know of."""

from __future__ import annotations

import numpy as np

from tb_bnlens.analysis.effective import differs
from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.analysis.loss_gap import Losses
from tb_bnlens.history import History
from tb_bnlens.rules import judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_applicable, passed

META = Meta(
    id="set-after-trace",
    title="Layers do what their attributes say",
    failure_title="An attribute was set after the step was traced",
    description="momentum and trainable are baked into the training step when it is traced. Set later without compile, "
    "they change the attribute and nothing else: the moving statistics show the old value.",
    requires=("losses", "layers", "history"),
    explains=("inference-mode-layer", "never-updated", "momentum-too-high", "momentum-too-low", "train-inference-gap"),
)

WINDOW_FACTOR = 1.25
"""The window 1/(1-momentum) that the statistics show has to differ by a quarter: the estimate is good to a few parts
in a thousand, and no two momenta in use are closer."""


def check(losses: Losses, layers: LayerTable, history: History) -> Finding:
    """Compare attributes with what the moving statistics do."""
    if not layers.names:
        return not_applicable("The model has no BatchNorm layers.")
    other = layers.updating & differs(layers.effective, layers.momentum, WINDOW_FACTOR) & ~np.isnan(layers.effective)
    flag = np.array([layer.trainable for layer in history.manifest.layers], bool)
    still_updating = layers.updating & layers.is_state("updating") & ~flag
    compiled = max((e.step for e in history.manifest.events if e.kind in ("recompile", "restart", "start")), default=0)
    thawed = np.zeros(len(layers.names), bool)
    for event in history.manifest.events:
        # A flag set before the run's first trace is a matter of the call, not of the trace.
        if event.kind == "unfreeze" and event.step > compiled:
            thawed[[i for i in event.layers if i < len(thawed)]] = True
    # The change is seen at the record that follows it, so the statistics have to stand still to the end.
    thawed &= layers.is_state("inference_mode", "never_updated", "unknown")
    wrong = other | still_updating | thawed
    if not wrong.any():
        return passed("The moving statistics change as momentum and trainable say.")
    severity = judging.severity_or_estimate(losses, judging.severity_of_stale(losses), layers.distance, wrong)
    severity = Severity.INFO if severity is Severity.NONE else severity
    parts = []
    if other.any():
        parts.append(
            f"{judging.count(int(other.sum()))} say momentum {judging.momenta(layers.momentum[other])} and their "
            f"statistics "
            f"move at {judging.momenta(np.round(layers.effective[other], 4))}"
        )
    if still_updating.any():
        parts.append(f"{judging.count(int(still_updating.sum()))} with trainable=False go on updating")
    if thawed.any():
        parts.append(f"{judging.count(int(thawed.sum()))} set to trainable=True stay constant")
    headline = "; ".join(parts) + ": set after the training step was traced, without compiling again."
    evidence = {}
    if other.any():
        evidence["effective"] = Evidence(
            "momentum that the statistics show",
            float(np.median(layers.effective[other])),
            float(np.median(layers.momentum[other])),
        )
    return Finding(
        Status.FAIL,
        headline + judging.estimate_note(losses),
        severity,
        layers=judging.layers_of(wrong),
        last_step=history.last_step,
        evidence=evidence or {"layers": Evidence("layers that do not do what their flag says", int(wrong.sum()), 0)},
        # An optimizer keeps to the variables that it was built with, and unfreezing adds some.
        fix="optimizer = model.optimizer.from_config(model.optimizer.get_config())\n"
        "model.compile(optimizer=optimizer, loss=model.loss)  # the next fit traces the step anew\n",
        next="The statistics move as the attributes say.",
        headline=headline,
    )
