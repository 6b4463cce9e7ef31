"""The gap appears once training is over: the weights were exchanged, the statistics were not."""

from __future__ import annotations

import numpy as np

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.loss_gap import WARNING_HARM, Gap, Losses
from tb_bnlens.history import History
from tb_bnlens.rules import judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Status, not_evaluated, passed

META = Meta(
    id="averaged-weights",
    title="The statistics belong to the weights",
    failure_title="Averaged weights on statistics of the unaveraged ones",
    description="SwapEMAWeights and its like put averaged weights into the model after an epoch. Their activations "
    "have "
    "statistics of their own, and neither the moving statistics nor those of the last batches are those.",
    requires=("losses", "history"),
    explains=("train-inference-gap", "batch-noise", "short-last-batch"),
)

LEAST_BEFORE = 3
"""Probes before the last one that show what is usual."""
DEVIATIONS = 5.0
"""The last gap has to stand this many robust standard deviations above those."""


def check(losses: Losses, history: History) -> Finding:
    """Compare the probe after the last step with the probes during training."""
    course = losses.course
    if not losses.evaluated or "recalibrated" not in course or len(losses.steps) < LEAST_BEFORE + 1:
        return not_evaluated("It takes a few probes during training and one after it.")
    inference, recalibrated = (course[k] - course["batch"] for k in ("inference", "recalibrated"))
    now = Gap(float(inference[-1]), 0.0, losses.harm(float(inference[-1])))
    pooled = Gap(float(recalibrated[-1]), 0.0, losses.harm(float(recalibrated[-1])))
    before = [robust.median(x[:-1]) for x in (inference, recalibrated)]
    spread = [
        1.4826 * robust.median(np.abs(x[:-1] - b)) for x, b in zip((inference, recalibrated), before, strict=True)
    ]
    sudden = all(
        g.value - b > DEVIATIONS * s and g.value > 2 * max(b, 0.0)
        for g, b, s in zip((now, pooled), before, spread, strict=True)
    )
    if not (
        sudden and now.at_least(WARNING_HARM) and pooled.at_least(WARNING_HARM) and losses.step == history.last_step
    ):
        return passed("The gap after the last step is like that during training.")
    headline = (
        f"During training inference was within {judging.number(max(before[0], 0.0))} of batch mode; after the last "
        f"step it is "
        f"{judging.number(now.value)} above it, and statistics of the last batches do not help "
        f"({judging.number(pooled.value)} "
        "above): the weights were exchanged for averaged ones, and the statistics belong to the others."
    )
    return Finding(
        Status.FAIL,
        headline,
        judging.severity_of(now),
        first_step=losses.step,
        last_step=losses.step,
        evidence={
            "after": Evidence("inference - batch after the last step", now.value, before[0]),
            "recalibrated": Evidence("recalibrated - batch after the last step", pooled.value, before[1]),
        },
        ruled_out=(
            ("stale statistics", "those of the last batches do no better"),
            ("batch noise", "during training there was none"),
        ),
        fix="import tb_bnlens\n\ntb_bnlens.recalibrate(model, data, batches=200)  # on the averaged weights\n",
        next="Inference with the averaged weights comes down to batch mode.",
        headline=headline,
    )
