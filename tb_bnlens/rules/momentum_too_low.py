"""A momentum so low that the moving statistics are little more than the last batch."""

from __future__ import annotations

import math

import numpy as np

from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.analysis.loss_gap import WARNING_HARM, Losses
from tb_bnlens.analysis.noise import noise_floor
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
NOISE_DISTANCE = 0.05
"""The moving statistics have to scatter this much, as a distance, before the loss can jump with them: below it three
measured networks lost 10 to 30% at most (docs/design.md, Distance and loss)."""


def check(losses: Losses, layers: LayerTable) -> Finding:
    """Compare inference with what a higher momentum would have given, at the worst of ten probes."""
    if not layers.updating.any():
        return not_applicable("No layer's moving statistics are being updated.")
    scatter = noise_floor(layers.scatter, layers.beta)
    beta = layers.beta[layers.updating]
    low = layers.updating & (layers.beta <= max(PASTED, float(np.min(beta)) + 1e-6))
    jump, best = losses.jump("inference", "recalibrated"), _best_higher(losses, float(np.max(layers.beta[low])))
    noisy = low & ~(scatter < NOISE_DISTANCE)
    if not jump.known and float(np.min(beta)) > PASTED:
        return not_evaluated("It takes a few probes of the recalibrated loss.")
    severity = Severity.NONE
    if jump.known and noisy.any():
        # As for stale statistics: worse than batch mode, or, at most a warning, worse than it could be.
        over_batch = judging.severity_of(losses.jump("inference", "batch"))
        severity = min(
            judging.at_most(over_batch, judging.severity_of(jump)),
            judging.at_most(judging.severity_of(jump), Severity.WARNING),
            key=lambda s: s.rank,
        )
    if float(np.min(beta)) > PASTED and best is None:
        return passed("No higher momentum does better.")
    if severity in (Severity.NONE, Severity.INFO):
        if not float(np.min(beta)) <= PASTED:
            return passed("The loss does not jump with the last batches.")
        if losses.replayed and best is None and bool((layers.drifting | layers.wandering).any()):
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
        f": inference jumps by {judging.number(jump.value)} at one probe in ten over an average of more batches."
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
            "jump": Evidence("inference over recalibrated, one probe in ten", jump.value, WARNING_HARM * losses.scale),
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


def _best_higher(losses: Losses, beta: float) -> float | None:
    """The replayed momentum above beta with the least inference loss, None where none does better than inference."""
    higher = {m: v for m, v in losses.replayed.items() if m > beta + 1e-9}
    if not higher:
        return None
    best = min(higher, key=lambda m: higher[m])
    return best if higher[best] < losses.now.get("inference", math.nan) else None
