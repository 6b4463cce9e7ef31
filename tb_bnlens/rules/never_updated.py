"""Layers that are called in training mode, yet whose moving statistics are bit-identical to their start."""

from __future__ import annotations

import numpy as np

from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.analysis.loss_gap import Losses
from tb_bnlens.history import History
from tb_bnlens.rules import fixes, judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_applicable, passed

META = Meta(
    id="never-updated",
    title="Moving statistics are updated",
    failure_title="Moving statistics that are never updated",
    description="Trainable layers in training mode whose moving statistics never change: a momentum of 1, a loop that "
    "calls the model without training=True, or updates that are dropped.",
    requires=("losses", "layers", "history"),
    explains=("train-inference-gap",),
)


def check(losses: Losses, layers: LayerTable, history: History) -> Finding:
    """Look for the state; the loss says how bad it is."""
    if not layers.names:
        return not_applicable("The model has no BatchNorm layers.")
    still = layers.is_state("never_updated")
    if not still.any():
        return passed("No layer in training mode kept its start.")
    severity = judging.severity_or_estimate(losses, judging.severity_of_stale(losses), layers.distance, still)
    severity = Severity.INFO if severity is Severity.NONE else severity
    one = layers.momentum[still] >= 1.0
    why = (
        f"Their momentum is {judging.momenta(layers.momentum[still])}, which keeps the start for ever."
        if one.all()
        else "Training runs, so either the step calls the model without training=True or its updates are dropped."
    )
    headline = (
        f"{judging.count(int(still.sum()), 'BatchNorm layer')} of {len(layers.names)} never updated: their moving "
        f"statistics are bit-identical to their start after {history.last_step:,} steps. {why}"
    )
    fix = (
        fixes.set_momentum(0.99)
        if one.all()
        # Weights that have learned with the start want no other statistics.
        else "# In your training step:  y_pred = model(x, training=True)\n"
        + (fixes.RECALIBRATE if severity is not Severity.INFO else "")
    )
    return Finding(
        Status.FAIL,
        headline + judging.estimate_note(losses),
        severity,
        layers=judging.layers_of(still),
        first_step=judging.first_step(history),
        last_step=history.last_step,
        steps_to_converge=np.inf,
        evidence={
            "updates": Evidence("updates of these layers", float(layers.updates[still].max()), history.last_step),
            "distance": Evidence("largest distance", float(np.nanmax(layers.distance[still], initial=0.0))),
        },
        ruled_out=(("frozen layers", "they are trainable"), ("a lag", "a lag changes at every update; these do not")),
        fix=fix,
        next="The moving statistics change at the next record.",
        headline=headline,
    )
