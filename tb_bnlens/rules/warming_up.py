"""The moving statistics still remember their start, and the steps that are left will cure it."""

from __future__ import annotations

import numpy as np

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.analysis.loss_gap import Losses
from tb_bnlens.analysis.outlook import Outlook
from tb_bnlens.rules import judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_applicable, not_evaluated, passed

META = Meta(
    id="warming-up",
    title="The moving statistics have warmed up",
    failure_title="Moving statistics are warming up",
    description="Early in a run inference is worse than training mode because the moving statistics still hold their "
    "start. That is as it should be while the steps that are left suffice; until then validation figures say nothing.",
    requires=("losses", "layers", "outlook"),
    explains=("train-inference-gap",),
    excuses=True,
)


def check(losses: Losses, layers: LayerTable, outlook: Outlook) -> Finding:
    """Say at which step the statistics will have converged, where they will."""
    if not layers.updating.any():
        return not_applicable("No layer's moving statistics are being updated.")
    if np.isnan(layers.error[layers.updating]).all():
        return not_evaluated(judging.no_statistics(losses))
    starting = layers.starting
    if starting.sum() < max(1, int(layers.drifting.sum())):
        return passed("The moving statistics have forgotten their start.")
    if outlook.remaining is None:
        return not_evaluated("It is not known how many steps are planned.")
    if not outlook.will_converge:
        return passed("Not a matter of waiting: the steps that are left do not suffice.")
    gap = losses.gap("inference", "recalibrated")
    if losses.evaluated and judging.severity_of_stale(losses) is Severity.NONE:
        return passed("Some of the start is left in the moving statistics, and the loss does not feel it.")
    n, at = int(starting.sum()), int(np.ceil(outlook.last_step + outlook.steps))
    now = ""
    if gap.known:
        inference, batch = losses.now["inference"], losses.now["batch"]
        now = f" Until then inference ({judging.number(inference)}) lags behind batch mode ({judging.number(batch)})."
    headline = (
        f"{n} of {len(layers.names)} BatchNorm layers still {judging.verb(n, 'remember')} their start and will make "
        "it: "
        f"converged by step {at:,} of {outlook.last_step + outlook.remaining:,}."
    )
    return Finding(
        Status.FAIL,
        headline + now,
        Severity.INFO,
        layers=judging.layers_of(starting),
        last_step=outlook.last_step,
        steps_to_converge=outlook.steps * float(np.median(layers.updates_per_step[starting])),
        evidence={
            "steps": Evidence("steps still needed", outlook.steps, outlook.remaining, "steps"),
            "memory": Evidence("share of the start left", robust.median(layers.memory[starting])),
        },
        ruled_out=(("momentum too high", f"{outlook.remaining:,} steps are left"),),
        next=f"Inference within tolerance of batch mode by step {at:,}.",
        headline=headline,
    )
