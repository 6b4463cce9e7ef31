"""A momentum so low that the moving statistics are little more than the last batch."""

from __future__ import annotations

import math

import numpy as np

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.analysis.loss_gap import WARNING_HARM, Gap, Losses
from tb_bnlens.analysis.noise import noise_floor
from tb_bnlens.metadata import REPLAY_MOMENTA, replay_row
from tb_bnlens.rules import fixes, judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_applicable, not_evaluated, passed

META = Meta(
    id="momentum-too-low",
    title="The momentum averages enough batches",
    failure_title="Momentum too low: inference jumps with the last batches",
    description="Keras' momentum is the share that is kept; PyTorch's is the share that is taken, so its 0.1 is 0.9 "
    "here. At a low momentum the moving statistics repeat the noise of the last few batches.",
    requires=("losses", "layers"),
    explains=("train-inference-gap", "batch-noise"),
)

PASTED = 0.5
"""At or below it the last batch counts for as much as all before: seldom meant."""
JUMP_QUANTILE = 0.9
"""A jump is what one probe in ten exceeds."""
LEAST_PROBES = 3
NOISE_DISTANCE = 0.05
"""The moving statistics have to scatter this much, as a distance, before the loss can jump with them: below it three
measured networks lost 10 to 30% at most (DESIGN.md, section 4)."""


def check(losses: Losses, layers: LayerTable) -> Finding:
    """Compare inference with what a higher momentum would have given, at the worst of ten probes."""
    if not layers.updating.any():
        return not_applicable("No layer's moving statistics are being updated.")
    scatter = noise_floor(layers.scatter, layers.beta)
    beta = layers.beta[layers.updating]
    low = layers.updating & (layers.beta <= max(PASTED, float(np.min(beta)) + 1e-6))
    jump, best = _jump(losses, float(np.max(layers.beta[low])))
    noisy = low & ~(scatter < NOISE_DISTANCE)
    if not jump.known and float(np.min(beta)) > PASTED:
        return not_evaluated("It takes the loss at other momenta.")
    severity = judging.severity_of(jump) if jump.known and noisy.any() else Severity.NONE
    if severity in (Severity.NONE, Severity.INFO):
        if not float(np.min(beta)) <= PASTED:
            return passed("The loss does not jump with the last batches.")
        better_lower = best is not None and jump.known and jump.value <= 0 and bool(layers.drifting.any())
        if better_lower:
            return passed("The momentum is low, and following drift it does better than a higher one.")
        severity, noisy = Severity.INFO, layers.updating & (layers.beta <= PASTED)
    value = float(np.min(layers.beta[noisy]))
    # The mirrored value is what somebody who pasted PyTorch's convention meant.
    advice = 1.0 - value if 0.0 < value < PASTED else best or 0.99
    scattered = scatter[noisy][~np.isnan(scatter[noisy])]
    headline = (
        f"Momentum {judging.momenta(layers.beta[noisy])} keeps little but the last batches in "
        f"{judging.count(int(noisy.sum()))}"
    )
    headline += (
        f": inference jumps by {judging.number(jump.value)} at one probe in ten where a higher momentum would not."
        if severity is not Severity.INFO
        else "; the loss does not jump with them here."
    )
    if value < PASTED:
        headline += f" Keras' momentum is the share that is kept; PyTorch's {value:g} is {1 - value:g} here."
    return Finding(
        Status.FAIL,
        headline,
        severity,
        layers=judging.layers_of(noisy),
        last_step=losses.step,
        evidence={
            "momentum": Evidence("momentum", value, PASTED),
            "jump": Evidence(
                "inference over the best higher momentum, one probe in ten", jump.value, WARNING_HARM * losses.scale
            ),
            "scatter": Evidence(
                "scatter of the moving statistics", float(scattered.max()) if len(scattered) else None, NOISE_DISTANCE
            ),
        },
        ruled_out=(("stale statistics", "an older average does better, not a newer one"),)
        if severity is not Severity.INFO
        else (),
        fix=fixes.set_momentum(round(advice, 6)),
        next="Inference follows batch mode smoothly.",
        headline=headline,
    )


def _jump(losses: Losses, beta: float) -> tuple[Gap, float | None]:
    """Inference over the best of the pool and of higher momenta, at its 90th percentile; that momentum."""
    higher = [m for m in REPLAY_MOMENTA if m > beta + 1e-9 and replay_row(m) in losses.course]
    if not higher or not losses.course:
        return Gap(math.nan, math.nan, math.nan), None
    columns = np.stack([losses.course[replay_row(m)] for m in higher])
    inference = losses.course["inference"]
    known = ~np.isnan(columns).all(0) & ~np.isnan(inference)
    if known.sum() < LEAST_PROBES:
        return Gap(math.nan, math.nan, math.nan), None
    typical = np.array([robust.median(column[known]) for column in columns])
    best = int(np.argmin(np.where(np.isnan(typical), np.inf, typical)))
    jumps = inference[known] - columns[best][known]
    value = float(np.quantile(jumps[~np.isnan(jumps)], JUMP_QUANTILE))
    return Gap(value, 0.0, losses.harm(value)), higher[best]
