"""A momentum so low that the moving statistics are little more than the last batch."""

from __future__ import annotations

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.conditions import PASTED, SCATTER, longer_memory
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import (
    JUMP,
    STANDARD,
    WARNING_FROM,
    as_set,
    count,
    momentum_range,
    number,
    recalibrated_would,
    replayed,
)
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def passed(f: Facts, d: Decision) -> str:
    """What a higher momentum would give."""
    low, lower = number(as_set(f, f.lowest_momentum)), ("smaller", "largest") if f.in_torch else ("higher", "lowest")
    if f.best_higher(PASTED) is None and f.replayed:
        return f"No {lower[0]} momentum than {low} has a lower loss when replayed."
    return f"The {lower[1]} momentum is {low}, and inference loss does not jump with the last batches."


def failed(f: Facts, d: Decision) -> Said:
    """How far the loss jumps, and the momentum that was probably meant."""
    beta = f.layers.beta[list(d.layers)]
    value, mirrored = float(beta.min()), f.mirrored_momentum(float(beta.min()))
    momentum, layers = f"Momentum {momentum_range(f, beta)}", count(len(d.layers))
    if value > PASTED:
        batches = number(float(f"{1.0 / (1.0 - value):.2g}"))
        summary = f"{momentum} averages over some {batches} batches, too few for how much they differ in {layers}."
    else:
        summary = f"{momentum} keeps little but the last batches in {layers}."
    best = f.best_higher(PASTED)
    if d.severity > Severity.INFO:
        if f.jump.value > 0:
            summary += (
                f" At one probe in ten, inference loss is {number(f.jump.value)} above what an average of more batches "
                "gives."
            )
        if best is not None and longer_memory(f).significant:
            summary += f" Replayed with momentum {as_set(f, best):g}, {replayed(f, best)}."
        elif best is None:
            summary += recalibrated_would(f)
    else:
        summary += recalibrated_would(f) or " The loss does not jump with them in this run."
    if mirrored is not None and not f.in_torch:
        own = "Keras' momentum" if f.in_keras else "The momentum of flax"
        summary += f" {own} is the share that is kept: PyTorch's {value:g} is {mirrored:g} here."
    advice = mirrored or best or 0.99
    return Said(
        summary,
        evidence={
            "momentum": Evidence("momentum", as_set(f, value), as_set(f, PASTED)),
            "jump": Evidence(JUMP, f.jump.value, f.warning_loss, against=WARNING_FROM),
            "scatter": Evidence(
                "scatter of the moving statistics", robust.largest(f.moving_scatter[list(d.layers)]), SCATTER, STANDARD
            ),
        },
        rescue=code.RECALIBRATE if recalibrated_would(f) else "",
        rescued="recalibrated",
        fix=code.set_momentum(f, round(advice, 6)),
        next="Inference loss follows the loss with batch statistics smoothly."
        + (" A replay is of the weights of this training; those of another one differ." if best is not None else ""),
    )


WORDS = Words(
    name="momentum too low",
    title="The momentum averages enough batches",
    failure_title="Momentum too low: inference depends on the last batches",
    description="Keras' momentum is the share that is kept; PyTorch's is the share that is replaced, so its 0.1 is 0.9 "
    "here. At a low momentum the moving statistics repeat the noise of the last few batches.",
    in_torch={
        "name": "momentum too large",
        "failure_title": "Momentum too large: inference depends on the last batches",
        "description": "Momentum is the share that a batch replaces. At a large one the running statistics repeat the "
        "noise of the last few batches.",
    },
    in_flax={
        "description": "The momentum of flax is the share that is kept; PyTorch's is the share that is replaced, so "
        "its 0.1 is 0.9 here. At a low momentum the running statistics repeat the noise of the last few batches.",
    },
    absent="No layer's moving statistics are being updated.",
    unknown=lambda _: "This takes a few probes of the recalibrated loss.",
    passed=passed,
    failed=failed,
)
