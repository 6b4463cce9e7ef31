"""A momentum in the sense of Keras, the share that is kept, in a PyTorch model."""

from __future__ import annotations

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.conditions import PASTED, SCATTER
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import (
    JUMP,
    STANDARD,
    WARNING_FROM,
    as_set,
    momentum_range,
    number,
    recalibrated_would,
    some_of,
    verb,
)
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def passed(f: Facts, _d: Decision) -> str:
    """The largest momentum."""
    return f"The largest momentum is {number(as_set(f, f.lowest_momentum))}."


def failed(f: Facts, d: Decision) -> Said:
    """What a batch replaces, and what was probably meant."""
    beta, n = f.layers.beta[list(d.layers)], len(d.layers)
    replaced, meant = as_set(f, float(beta.min())), float(beta.min())
    others = f.layers.beta[f.layers.updating & (f.layers.beta > PASTED)]
    summary = (
        f"{some_of(n, len(f.layers.names))} {verb(n, 'have')} momentum {momentum_range(f, beta)}. In PyTorch that is "
        f"the share that each batch replaces: {replaced:.4g} keeps little but the last batch. Keras and TensorFlow "
        f"give the share that is kept, and their {replaced:.4g} is {meant:.4g} here."
    )
    if len(others):
        summary += f" Other layers of this model have {momentum_range(f, others)}."
    if d.severity > Severity.INFO and f.jump.value > 0:
        summary += f" At one probe in ten, inference loss is {number(f.jump.value)} above what an average gives."
    summary += recalibrated_would(f)
    return Said(
        summary,
        evidence={
            "momentum": Evidence("momentum", replaced, as_set(f, PASTED)),
            "jump": Evidence(JUMP, f.jump.value, f.warning_loss, against=WARNING_FROM),
            "scatter": Evidence(
                "scatter of the moving statistics", robust.largest(f.moving_scatter[list(d.layers)]), SCATTER, STANDARD
            ),
        },
        rescue=code.RECALIBRATE if recalibrated_would(f) else "",
        rescued="recalibrated",
        fix=code.set_momentum(f, round(1.0 - meant, 6)),
        next="Inference loss follows the loss with batch statistics smoothly.",
    )


WORDS = Words(
    name="mixed-up conventions",
    title="The momentum is in PyTorch's convention",
    failure_title="The momentum is in the convention of another framework",
    description="PyTorch's momentum is the share of a running statistic that a batch replaces; that of Keras and "
    "TensorFlow is the share that is kept. A value that is copied from one to the other keeps the last batch alone, or "
    "hardly moves.",
    absent="The model is none of PyTorch, or no layer is updated with a momentum.",
    passed=passed,
    failed=failed,
)
