"""Frozen layers whose statistics come from other data: harmful or harmless, by the losses."""

from __future__ import annotations

import math

import numpy as np

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.fixed import constant_part
from tb_bnlens.analysis.lag import LARGE_DISTANCE, LayerTable
from tb_bnlens.analysis.loss_gap import WARNING_HARM, Losses
from tb_bnlens.history import History
from tb_bnlens.rules import fixes, judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_applicable, not_evaluated, passed

META = Meta(
    id="frozen-mismatch",
    title="Frozen statistics fit the data",
    failure_title="Frozen moving statistics do not fit the data",
    description="A frozen layer (trainable=False) normalizes with the statistics of the data it was trained on. Where "
    "those differ from this run's batches the network may still have learned with them: the losses tell.",
    requires=("losses", "layers", "history"),
    explains=("train-inference-gap",),
)


def check(losses: Losses, layers: LayerTable, history: History) -> Finding:
    """Compare frozen statistics with the probe's batches, and judge them by the loss that remains their part."""
    frozen = layers.is_state("frozen")
    if not frozen.any():
        return not_applicable("No layer is frozen.")
    distance = np.where(frozen, layers.distance, np.nan)
    if np.isnan(distance).all():
        return not_evaluated("What the batches look like to frozen layers is not measured in this run.")
    far = frozen & (distance >= LARGE_DISTANCE)
    part = constant_part(losses, layers)
    severity = judging.severity_of(part) if part.known else Severity.NONE
    if not losses.evaluated:
        severity = judging.severity_or_estimate(losses, severity, layers.distance, far) if far.any() else Severity.NONE
    off = far if far.any() else frozen & (distance >= layers.tolerance)
    if severity in (Severity.NONE, Severity.INFO):
        if not far.any():
            return passed(f"{judging.count(int(frozen.sum()))} frozen; their statistics fit the batches.")
        severity, off = Severity.INFO, far
    elif not off.any():
        return passed("Frozen statistics fit the batches; the gap is not theirs.")

    values = {kind: losses.typical.get(kind, math.nan) for kind in ("training", "batch", "inference")}
    said = {kind: judging.number(value) for kind, value in values.items()}
    text = (
        f"{int(off.sum())} of {judging.count(int(frozen.sum()), 'frozen layer')} "
        f"{judging.verb(int(off.sum()), 'use')} statistics of other data "
        f"(distance up to {judging.number(robust.largest(distance))} batch standard deviations)."
    )
    evidence = {
        "distance": Evidence("largest distance of a frozen layer", robust.largest(distance), LARGE_DISTANCE),
        "part": Evidence("loss that frozen statistics cost", part.value, WARNING_HARM * losses.scale),
    }
    grave = severity is not Severity.INFO
    if not losses.evaluated:
        pass
    elif not grave:
        text += f" It does no harm: inference {said['inference']} against batch mode {said['batch']}."
    elif losses.gap("inference", "training").at_least(WARNING_HARM):
        text += (
            f" Training does not feel it ({said['training']}), because there these layers normalize with the batch; "
            f"inference ({said['inference']}) does."
        )
    else:
        text += (
            f" Training and inference both feel it: {said['training']} and {said['inference']} where the batches' own "
            f"statistics would give {said['batch']}."
        )
    lagging = int(layers.lagging.sum())
    return Finding(
        Status.FAIL,
        text + judging.estimate_note(losses),
        severity,
        layers=judging.layers_of(off),
        first_step=judging.first_step(history),
        last_step=history.last_step,
        steps_to_converge=math.inf,
        evidence=evidence,
        ruled_out=(("a lag of updating layers", f"{lagging} of {int(layers.updating.sum())} updating layers lag"),)
        + (
            (("dropout", f"training {said['training']} against batch {said['batch']}"),)
            if grave and values["training"] <= values["batch"] * 1.1
            else ()
        ),
        fix="" if not grave else _fix(history, off),
        next="Inference near batch mode. If it is not, check that inputs are preprocessed as for the original training."
        if grave
        else "",
        headline=text,
    )


def _fix(history: History, off: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> str:
    return (
        "# First check that the inputs are preprocessed as the base expects. Then, either take the new statistics:\n"
        "import tb_bnlens\n\n"
        "tb_bnlens.recalibrate(model, data, batches=200, frozen=True)\n\n"
        "# or let training update them (then compile again):\n# "
        + fixes.at_layers(
            [history.manifest.layers[i].access for i in judging.layers_of(off)][:3], "layer.trainable = True"
        )
        .rstrip()
        .replace("\n", "\n# ")
        + "\n"
    )
