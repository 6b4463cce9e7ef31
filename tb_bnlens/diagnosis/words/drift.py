"""The batch statistics move, and the moving statistics follow without catching up."""

from __future__ import annotations

import math

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.lag import SPARSE
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import (
    RELATIVE_ERROR,
    STANDARD,
    as_set,
    felt,
    momentum_range,
    no_statistics,
    number,
    part_of,
)
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def passed(f: Facts, d: Decision) -> str:
    """How fast the batch statistics move, and what lag that leaves."""
    lag = robust.median(f.layers.permanent_lag[f.layers.updating])
    if d.where is not None:
        if math.isnan(lag):
            return "The moving statistics lag behind the batches, and inference loss does not suffer."
        return f"The batch statistics drift, and inference loss does not suffer (lag {number(lag)})."
    if math.isnan(lag):
        return "No layer lags by more than batch noise and its initial statistics explain."
    if lag <= f.layers.tolerance:
        return f"Drift leaves a lag of {number(lag)} batch standard deviations in the median layer."
    if f.starting.any():
        return "The layers that lag still hold their initial statistics, and those explain the lag."
    if f.parts is not None and f.parts.unexplained.any():
        return "The recorded batches do not explain the updates of the layers that lag, as they would under drift."
    if f.parts is not None and f.parts.by_mode.any():
        return "The layers that lag have the statistics that training-only layers give."
    if f.layers.lagging.any():
        return "In the layers that lag, the batch statistics do not drift by more than their noise."
    off = number(robust.largest(f.layers.error[f.layers.updating]))
    return f"No layer lags: the relative error of the statistics is at most {off}."


def failed(f: Facts, d: Decision) -> Said:
    """The rate, the momentum that stays behind, and the learning rate that would let it follow."""
    where = f.drifting
    rate, learning_rate = f.drift_rate, f.now("learning_rate")
    per_update = f" by {number(rate)} standard deviations per update"
    at = f" at learning rate {learning_rate:g}" if math.isfinite(learning_rate) else ""
    some, momentums = part_of(len(d.layers), len(f.layers.names)), momentum_range(f, f.layers.beta[where])
    if rate > 0.0:
        lag = robust.median(f.layers.permanent_lag[where])
        behind = f"{number(lag)} standard deviations behind" if math.isfinite(lag) else "behind"
        summary = (
            f"The batch statistics of {some} drift{per_update}{at}. Momentum {momentums} follows {behind} for as long "
            "as that lasts."
        )
    else:
        summary = (
            f"The moving statistics of {some} lag behind the batches{at}, although their initial values are forgotten. "
            f"Momentum {momentums} keeps old batches for too long."
        )
    summary += felt(f, d.severity)
    momentum = f.followed
    # From the start on, such a rate leaves a short training unfinished.
    fix = "# For the last part of the training, e.g. a tenth of it, so that the statistics catch up with the weights:\n"
    fix += code.set_learning_rate(f, f.advised_learning_rate, f.scheduled)
    if momentum is not None:
        fix += (
            f"\n# Or{', before compile' if f.in_keras else ''}: momentum {as_set(f, momentum):g}, inference loss "
            f"{number(f.replayed[momentum])} (replayed).\n"
            f"# import tb_bnlens; tb_bnlens.set_momentum(model, {as_set(f, momentum):g})\n"
        )
    fix += (
        "\n# At the end of training, for statistics of the final weights:\n"
        "# import tb_bnlens; tb_bnlens.recalibrate(model, data, batches=200)\n"
    )
    window = 1.0 / max(1.0 - robust.median(f.layers.beta[where]), 1e-9)
    return Said(
        summary,
        evidence=_evidence(f),
        rescue=code.rescue(f, d.severity),
        rescued="recalibrated",
        fix=fix,
        next="The lag shrinks with the learning rate. Inference loss falls to the loss with batch statistics after a "
        f"few windows of the momentum ({number(window)} updates each).",
    )


def _evidence(f: Facts) -> dict[str, Evidence]:
    layers, where = f.layers, f.drifting
    evidence = {
        "rate": Evidence("drift per update (median layer)", f.drift_rate, None, STANDARD),
        "significance": Evidence(
            "shift of the batch means over recent steps, in multiples of its noise (median layer)",
            robust.median((layers.shift / layers.shift_noise)[where]),
            robust.median(f.significant_shift[where]),
        ),
        "permanent_lag": Evidence(
            "lag of the moving mean while the drift lasts (median layer)",
            robust.median(layers.permanent_lag[where]),
            layers.tolerance,
            STANDARD,
            "tolerance",
        ),
        "error": Evidence(RELATIVE_ERROR, robust.median(layers.error[where]), layers.tolerance, against="tolerance"),
        "memory": Evidence(
            "share of the initial statistics left (largest)", round(robust.largest(layers.memory[where]), 4)
        ),
    }
    steady = robust.median(layers.lag_cosine[where])
    if math.isfinite(steady):
        evidence["cosine"] = Evidence("direction of the lag against an earlier one (cosine; 1: the same)", steady)
    replays = ", ".join(f"{as_set(f, m):g}: {number(v)}" for m, v in sorted(f.replayed.items(), reverse=True))
    if replays:
        evidence["replays"] = Evidence("inference loss, replayed with momentum", replays)
    long, short = f.typical("recalibrated_long"), f.typical("recalibrated")
    if math.isfinite(long) and math.isfinite(short):
        evidence["pools"] = Evidence(
            "inference loss with statistics of many recent steps", long, short, against="of few steps"
        )
    if f.following_momentum < 1.0:
        evidence["follows"] = Evidence(
            "momentum with the least lag and noise at this drift", as_set(f, f.following_momentum)
        )
    return evidence


def _unknown(f: Facts) -> str:
    old = f.layers.outdated[f.drifting].any()
    return f"Whether the layers lag is not known: {SPARSE}." if old else no_statistics(f)


WORDS = Words(
    name="drift",
    title="Inference does not suffer from drift",
    failure_title="Moving statistics lag behind drifting batch statistics",
    description="At a high learning rate the weights move the batch statistics at every step. A moving average lags by "
    "drift * momentum / (1 - momentum) for as long as that continues, so waiting does not help. A lower learning rate "
    "does, and a lower momentum for a while.",
    in_torch={
        "description": "At a high learning rate the weights move the batch statistics at every step. A running average "
        "lags by drift * (1 - momentum) / momentum for as long as that continues, so waiting does not help. A lower "
        "learning rate does, and a larger momentum for a while.",
    },
    absent="No layer's moving statistics are being updated.",
    unknown=_unknown,
    passed=passed,
    failed=failed,
)
