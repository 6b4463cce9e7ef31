"""The moving statistics still remember their start, and the run has no steps left to forget it."""

from __future__ import annotations

import math

import numpy as np

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.effective import shrink_per_update
from tb_bnlens.analysis.lag import LARGE_DISTANCE, LayerTable
from tb_bnlens.analysis.loss_gap import WARNING_HARM, Losses
from tb_bnlens.analysis.outlook import Outlook, advised_momentum, price
from tb_bnlens.history import History
from tb_bnlens.rules import fixes, judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_applicable, not_evaluated, passed

META = Meta(
    id="momentum-too-high",
    title="The momentum fits the length of the run",
    failure_title="Momentum too high for this run",
    description="A moving statistic forgets its start by the momentum at every update. Training mode normalizes with "
    "the batch and never notices; inference uses whatever is left of the start. Steps to converge: least n with "
    "error * momentum^n within tolerance.",
    requires=("losses", "layers", "outlook", "history"),
    explains=("train-inference-gap", "inference-mode-layer"),
)


def check(losses: Losses, layers: LayerTable, outlook: Outlook, history: History) -> Finding:
    """Compare the steps that the start needs to be forgotten with the steps that are left."""
    if not layers.updating.any():
        return not_applicable("No layer's moving statistics are being updated.")
    if np.isnan(layers.error[layers.updating]).all():
        return not_evaluated(judging.no_statistics(losses))
    starting = layers.starting
    if starting.sum() < max(1, int(layers.drifting.sum())):
        memory = robust.largest(layers.memory[layers.updating])
        return passed(f"The moving statistics have forgotten their start (at most {100 * memory:.2g}% of it is left).")
    if outlook.will_converge:
        return passed(f"They need {judging.steps_words(outlook.steps)} more and {outlook.remaining:,} are planned.")
    stale = losses.gap("inference", "recalibrated")
    severity = judging.severity_or_estimate(losses, judging.severity_of_stale(losses), layers.distance, starting)
    if severity is Severity.NONE:
        if not float(np.nanmax(layers.distance[starting], initial=0.0)) >= LARGE_DISTANCE:
            return passed("Some of the start is left in the moving statistics, and the loss does not feel it.")
        severity = Severity.INFO

    beta, n = layers.beta[starting], int(starting.sum())
    needed = outlook.last_step + outlook.steps
    advice = advised_momentum(layers, losses, outlook.last_step + (outlook.remaining or 0))
    replayed = losses.replayed.get(advice, math.nan) if advice is not None else math.nan
    had = f"this run had {outlook.last_step:,}" if outlook.remaining == 0 else f"this run has had {outlook.last_step:,}"
    if outlook.remaining:
        had += f" and {outlook.remaining:,} are left"
    headline = (
        f"{n} of {len(layers.names)} BatchNorm layers still {judging.verb(n, 'remember')} their start: momentum "
        f"{judging.momenta(beta)} needs {judging.steps_words(needed)}, {had}."
    )
    if math.isfinite(replayed):
        headline += f" With momentum {advice:g} inference would stand at {judging.number(replayed)} now (replayed)."
    if severity is Severity.INFO and losses.evaluated:
        headline += " The loss hardly feels it."

    half = len(history.steps) // 2
    shrink = robust.median(
        shrink_per_update(history.row("error_p50")[half:, starting], history.row("updates")[half:, starting])
        if half >= 1
        else np.array([np.nan])
    )
    evidence = {
        "memory": Evidence("share of the start left in the moving statistics", robust.median(layers.memory[starting])),
        "steps_needed": Evidence("steps to converge, from the start", needed, outlook.last_step, "steps"),
        "momentum": Evidence("momentum", judging.momenta(beta), advice),
        "error": Evidence(
            "relative error of the statistics (p95, median layer)",
            robust.median(layers.error[starting]),
            layers.tolerance,
        ),
    }
    if advice is not None:
        costs = price(advice, layers)
        evidence["advised"] = Evidence(
            f"steps to converge at momentum {advice:g} (median layer)",
            costs.updates / float(np.median(layers.updates_per_step[starting])),
            needed,
            "steps",
        )
        if math.isfinite(costs.noise):
            evidence["advised_noise"] = Evidence("batch noise it leaves in the moving mean (median layer)", costs.noise)
        if math.isfinite(costs.lag):
            evidence["advised_lag"] = Evidence("lag that drift leaves at it (median layer)", costs.lag)
    if math.isfinite(shrink):
        evidence["shrink"] = Evidence("the error shrinks at each update by", float(shrink), float(np.median(beta)))
    if stale.known:
        evidence["stale"] = Evidence(
            "loss from stale statistics (inference - recalibrated)", stale.value, stale.uncertainty
        )
    return Finding(
        Status.FAIL,
        headline + judging.estimate_note(losses),
        severity,
        layers=judging.layers_of(starting),
        first_step=judging.first_step(history),
        last_step=outlook.last_step,
        steps_to_converge=outlook.steps * float(np.median(layers.updates_per_step[starting])),
        evidence=evidence,
        ruled_out=_ruled_out(losses, layers),
        fix=fixes.set_momentum(advice) if advice is not None else fixes.RECALIBRATE,
        next=f"Inference near {judging.number(replayed)} on the same batches, and no start left in the statistics."
        if math.isfinite(replayed)
        else "Inference within tolerance of the batch-mode loss. To keep this run: tb_bnlens.recalibrate(model, data).",
        headline=headline,
    )


def _ruled_out(losses: Losses, layers: LayerTable) -> tuple[tuple[str, str], ...]:
    out = []
    starting = layers.starting
    lag = layers.permanent_lag[starting]
    if not np.isnan(lag).all():
        share = robust.median(lag) / max(robust.median(layers.error[starting]), 1e-12)
        if share < 0.5:
            rate = robust.median(layers.rate[starting])
            out.append(
                ("drift", f"{rate:.2g} batch standard deviations an update explain {100 * share:.0f}% of the lag")
            )
    noise = losses.gap("recalibrated", "batch")
    if noise.known and not noise.at_least(WARNING_HARM):
        recalibrated, batch = losses.typical["recalibrated"], losses.typical["batch"]
        out.append(
            ("batch noise", f"recalibrated {judging.number(recalibrated)} against batch {judging.number(batch)}")
        )
    constant = int(layers.is_state("frozen", "inference_mode", "never_updated").sum())
    if constant == 0:
        out.append(("frozen or never updated layers", f"all {len(layers.names)} update"))
    return tuple(out)
