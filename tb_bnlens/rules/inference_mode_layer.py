"""Trainable layers that are called in inference mode, so that training does not update them."""

from __future__ import annotations

import math

import numpy as np

from tb_bnlens.analysis.fixed import constant_part
from tb_bnlens.analysis.lag import LARGE_DISTANCE, LayerTable
from tb_bnlens.analysis.loss_gap import WARNING_HARM, Losses
from tb_bnlens.history import History
from tb_bnlens.rules import judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_applicable, passed

META = Meta(
    id="inference-mode-layer",
    title="Trainable layers are called in training mode",
    failure_title="Trainable BatchNorm called in inference mode",
    description="A layer with trainable=True whose moving statistics stay constant: a subclassed call passes "
    "training=False to it or takes no training argument. A base called with training=False stays in inference mode "
    "after it is unfrozen.",
    requires=("losses", "layers", "history"),
    explains=("train-inference-gap",),
)


def check(losses: Losses, layers: LayerTable, history: History) -> Finding:
    """Look for the state; say it once where it may be meant, and loudly where the loss suffers."""
    called = layers.is_state("inference_mode")
    if not called.any():
        return not_applicable("No trainable layer is called in inference mode.")
    part = constant_part(losses, layers)
    distance = float(np.nanmax(layers.distance[called], initial=0.0))
    severity = judging.severity_of(part) if part.known and distance >= layers.tolerance else Severity.NONE
    if not losses.evaluated and distance >= LARGE_DISTANCE:
        severity = judging.severity_or_estimate(losses, Severity.NONE, layers.distance, called)
    unfrozen = [
        e
        for e in history.manifest.events
        if e.kind == "unfreeze" and (not e.layers or any(called[i] for i in e.layers))
    ]
    if severity is Severity.NONE:
        if not unfrozen and distance < LARGE_DISTANCE:
            return passed(f"{judging.count(int(called.sum()))} called in inference mode, with statistics that fit.")
        severity = Severity.INFO
    text = (
        f"{judging.count(int(called.sum()))} of {len(layers.names)} with trainable=True run in inference mode during "
        f"training: their statistics stay as they are (distance {judging.number(distance)})."
    )
    if unfrozen:
        text += f" They were unfrozen at step {unfrozen[-1].step:,}, but the call still says training=False."
    if losses.evaluated:
        text += (
            f" Inference stands at {judging.number(losses.typical['inference'])}, batch mode at "
            f"{judging.number(losses.typical['batch'])}"
        )
        text += "." if severity is not Severity.INFO else ", so it does no harm; fine if it is meant."
    return Finding(
        Status.FAIL,
        text + judging.estimate_note(losses),
        severity,
        layers=judging.layers_of(called),
        first_step=judging.first_step(history),
        last_step=history.last_step,
        steps_to_converge=math.inf,
        evidence={
            "distance": Evidence("largest distance", distance, LARGE_DISTANCE),
            "part": Evidence("loss that constant statistics cost", part.value, WARNING_HARM * losses.scale),
        },
        ruled_out=(("frozen layers", "trainable is True"),),
        fix="# In the call of your model pass its own argument on:  x = self.base(x, training=training)\n"
        "# Until then, to use statistics that fit:\n"
        "import tb_bnlens\n\n"
        "tb_bnlens.recalibrate(model, data, batches=200, frozen=True)\n",
        next="The layers' moving statistics change at the next record.",
        headline=text,
    )
