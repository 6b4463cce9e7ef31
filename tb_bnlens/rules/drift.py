"""The batch statistics move, and the moving statistics chase them without catching up."""

from __future__ import annotations

import math

import numpy as np

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.batches import Batches
from tb_bnlens.analysis.fixed import best_average
from tb_bnlens.analysis.lag import LARGE_DISTANCE, LayerTable
from tb_bnlens.analysis.loss_gap import WARNING_HARM, Losses
from tb_bnlens.analysis.outlook import following_momentum
from tb_bnlens.history import History
from tb_bnlens.metadata import REPLAY_MOMENTA
from tb_bnlens.rules import fixes, judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_applicable, not_evaluated, passed

META = Meta(
    id="drift",
    title="The moving statistics keep up with the weights",
    failure_title="Moving statistics chase drifting batch statistics",
    description="At a high learning rate the weights move the batch statistics at every step. A moving average stays "
    "behind by drift * momentum / (1 - momentum) for as long as that goes on, so waiting never helps; a lower learning "
    "rate does, a lower momentum for a while.",
    requires=("losses", "layers", "batches", "history"),
    explains=("train-inference-gap", "batch-noise", "momentum-too-low"),
)


def check(losses: Losses, layers: LayerTable, batches: Batches, history: History) -> Finding:
    """Blame drift for a lag that outlived the start, where newer statistics close the loss gap."""
    if not layers.updating.any():
        return not_applicable("No layer's moving statistics are being updated.")
    if np.isnan(layers.error[layers.updating]).all():
        return not_evaluated(judging.no_statistics(losses))
    # In a lag behind the pool, or further on: the pool itself is old where the statistics outrun a batch's scatter.
    inside = bool(2 * layers.wandering.sum() > layers.updating.sum())
    drifting = layers.drifting | layers.wandering if inside else layers.drifting
    if not drifting.any() or drifting.sum() < layers.starting.sum():
        return passed("No layer lags behind moving batch statistics.")
    if batches.unlike.any():
        return passed("The batch statistics come and go with the data rather than drift.")
    batch = losses.window.get("batch", np.empty(0))
    gap = losses.gap("inference", "batch")
    # Statistics taken at the present weights have no drift in them; without any, the shortest averages have least.
    present = losses.gap("recalibrated_now", "batch").known
    shorter = [] if present else [m for m in REPLAY_MOMENTA if m < float(np.max(layers.beta[drifting])) - 1e-9]
    newest = best_average(losses, ("recalibrated", "recalibrated_now"), shorter)
    paired = len(batch) > 0 and len(newest) > 0
    cured = losses.judge(losses.window["inference"] - newest) if paired else gap
    left = losses.judge(newest - batch) if paired else gap
    if present and left.at_least(WARNING_HARM) and left.value > cured.value:
        return passed("Batch statistics drift, but newer ones take away less of the gap than they leave.")
    measured = judging.severity_of(gap)
    if present or not inside:
        # Only what newer statistics take away is drift; without any at the present weights the pool's are too old.
        measured = judging.at_most(judging.severity_of(cured), measured)
    severity = judging.severity_or_estimate(losses, measured, layers.distance, drifting)
    if severity is Severity.NONE or (severity is Severity.INFO and losses.evaluated):
        if not float(np.nanmax(layers.distance[drifting], initial=0.0)) >= LARGE_DISTANCE:
            return passed("Batch statistics drift, and the loss does not feel it.")
        severity = Severity.INFO
    rate = robust.median(layers.rate[drifting])
    lag = max(robust.median(layers.error[drifting]), robust.median(layers.shift[drifting]) if inside else 0.0)
    learning_rate = losses.now.get("learning_rate", math.nan)
    at = f" at learning rate {learning_rate:g}" if math.isfinite(learning_rate) else ""
    per_step = f" by {judging.number(rate)} standard deviations a step" if math.isfinite(rate) else ""
    headline = (
        f"The batch statistics of {judging.count(int(drifting.sum()))} of {len(layers.names)} drift{per_step}{at}, and "
        f"momentum {judging.momenta(layers.beta[drifting])} stays behind: they never converge at this rate; lower "
        f"it first."
    )
    if severity is Severity.INFO and losses.evaluated:
        headline += " The loss hardly feels it."
    replays = ", ".join(f"{m:g}: {judging.number(v)}" for m, v in sorted(losses.replayed.items(), reverse=True))
    evidence = {
        "rate": Evidence("drift an update (median layer)", rate, None, "batch standard deviations"),
        "significance": Evidence(
            "shift between pools over its noise (median layer)",
            robust.median((layers.shift / layers.shift_noise)[drifting]),
            2.0,
        ),
        "permanent_lag": Evidence(
            "permanent lag of the mean (median layer)", robust.median(layers.permanent_lag[drifting]), layers.tolerance
        ),
        "error": Evidence(
            "relative error of the statistics (p95, median layer)",
            robust.median(layers.error[drifting]),
            layers.tolerance,
        ),
        "memory": Evidence("share of the start left", robust.largest(layers.memory[drifting])),
    }
    steady = robust.median(layers.lag_cosine[drifting])
    if math.isfinite(steady):
        evidence["cosine"] = Evidence("cosine of the lag with that one pool earlier (1 keeps its sign)", steady)
    if replays:
        evidence["replays"] = Evidence("inference at other momenta", replays)
    long, short = losses.typical.get("recalibrated_long", math.nan), losses.typical.get("recalibrated", math.nan)
    if math.isfinite(long) and math.isfinite(short):
        evidence["pools"] = Evidence("loss on statistics of a long pool, against a short one", long, short)
    follows = following_momentum(layers)
    if follows < 1.0:
        evidence["follows"] = Evidence("momentum of least lag and noise at this rate of drift", follows)
    good = [m for m, v in losses.replayed.items() if losses.harm(v - losses.now.get("batch", math.nan)) < WARNING_HARM]
    rates = history.loss("learning_rate")
    scheduled = len(np.unique(rates[~np.isnan(rates)])) > 1
    goal = learning_rate * layers.tolerance / lag if math.isfinite(learning_rate) and lag > 0 else None
    return Finding(
        Status.FAIL,
        headline + judging.estimate_note(losses),
        severity,
        layers=judging.layers_of(drifting),
        last_step=history.last_step,
        steps_to_converge=math.inf,
        evidence=evidence,
        ruled_out=(
            (
                "momentum too high for the run",
                f"{100 * robust.largest(layers.memory[drifting]):.2g}% of the start is left",
            ),
            ("batch noise", f"newer statistics give {judging.number(losses.judge(newest).value)}")
            if len(newest)
            else ("frozen layers", "they update"),
        ),
        fix=fixes.set_learning_rate(min(goal, learning_rate / 3) if goal else None, scheduled)
        + (
            f"\n# A momentum of {max(good):g} would follow closely enough for now (replayed), before compile:\n"
            f"# import tb_bnlens; tb_bnlens.set_momentum(model, {max(good):g})\n"
            if good
            else ""
        )
        + "\n# At the end of training, for statistics of the final weights:\n"
        "# import tb_bnlens; tb_bnlens.recalibrate(model, data, batches=200)\n",
        next="The lag shrinks with the learning rate, and inference comes down to batch mode once the momentum's "
        "window "
        f"({judging.number(1 / max(1 - robust.median(layers.beta[drifting]), 1e-9))} updates) has passed a few times.",
        headline=headline,
    )
