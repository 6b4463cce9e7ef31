"""The gap appears once training is over: the weights were exchanged, the statistics were not."""

from __future__ import annotations

import math

from tb_bnlens.analysis.exchanged import LEAST_BEFORE
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import LESS_BATCH, loss, number
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words

AVERAGED = (
    "Stochastic weight averaging and an exponential moving average put averaged weights into the model. Their "
    "activations have other statistics, which neither the running statistics nor the last batches give."
)


def unknown(f: Facts) -> str:
    """Which probes are missing."""
    if not f.evaluated or len(f.losses.settled) <= LEAST_BEFORE:
        return "This takes a few probes during training and one after it."
    return "This takes a probe after the last step."


def failed(f: Facts, d: Decision) -> Said:
    """The losses after the last step against those during training."""
    x = f.exchange
    if f.parts is not None:
        inference, recalibrated = (loss(f, f.typical(kind)) for kind in ("inference", "recalibrated"))
        now = f"Inference loss is {inference}, and {recalibrated} with statistics of the weights as they are."
    else:
        assert x is not None, "decided without an exchange"
        own = "" if math.isnan(x.present) else f", and {loss(f, x.present)} with statistics of these weights"
        now = (
            f"Inference loss is now {loss(f, x.inference)}, against {loss(f, x.recalibrated)} with statistics of the "
            f"last training batches{own}."
        )
    evidence = {}
    if x is not None:
        evidence = {
            "after": Evidence(
                f"{LESS_BATCH}, after the last step", x.over_batch.value, x.usual[0], against="during training"
            ),
            "recalibrated": Evidence(
                "recalibrated - batch statistics, after the last step",
                x.pooled_over_batch.value,
                x.usual[1],
                against="during training",
            ),
            "present": Evidence("inference loss with statistics of the present weights", x.present),
        }
    what = (
        "weights were exchanged for averaged or earlier ones after a training step, but the moving statistics were not"
    )
    if f.parts is not None and f.parts.came_with_weights.any():
        what = (
            "weights and the moving statistics were replaced after a training step, by statistics that do not fit the "
            "training data"
        )
    return Said(
        f"The {what}. {now}",
        evidence=evidence,
        rescue=code.rescue(f, d.severity),
        rescued="recalibrated",
        fix="# On the weights that are put in, at the end of every training"
        + (" (or torch.optim.swa_utils.update_bn)" if f.in_torch else "")
        + ":\n"
        + code.RECALIBRATE,
        next="Inference loss with the averaged weights falls to the loss with batch statistics.",
    )


def passed(f: Facts, _d: Decision) -> str:
    """How the last probe compares with those before it."""
    x = f.exchange
    if x is None:
        return f"Statistics of the present weights take {number(f.stale.value)} off the inference loss."
    return (
        f"The last losses are in line with training: {LESS_BATCH} is {number(x.over_batch.value)} now, and was "
        f"{number(x.usual[0])} during training."
    )


WORDS = Words(
    name="exchanged weights",
    title="The statistics fit the final weights",
    failure_title="Exchanged weights have statistics that do not fit them",
    description="SwapEMAWeights and similar callbacks put averaged weights into the model after an epoch. Their "
    "activations have other statistics, which neither the moving statistics nor the last batches give.",
    in_torch={"description": AVERAGED},
    in_flax={"description": AVERAGED},
    absent="There is no probe.",
    unknown=unknown,
    passed=passed,
    failed=failed,
)
