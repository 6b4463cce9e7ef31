"""The gap appears once training is over: the weights were exchanged, the statistics were not."""

from __future__ import annotations

import numpy as np

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.analysis.loss_gap import WARNING_HARM, Gap, Losses
from tb_bnlens.history import History
from tb_bnlens.rules import fixes, judging
from tb_bnlens.rules.rule import Evidence, Finding, Meta, Severity, Status, not_evaluated, passed

META = Meta(
    id="averaged-weights",
    title="The statistics belong to the weights",
    failure_title="Averaged weights on statistics of the unaveraged ones",
    description="SwapEMAWeights and its like put averaged weights into the model after an epoch. Their activations "
    "have "
    "statistics of their own, and neither the moving statistics nor those of the last batches are those.",
    requires=("losses", "layers", "history"),
    explains=("train-inference-gap", "batch-noise", "short-last-batch"),
)

LEAST_BEFORE = 3
"""Probes before the last one that show what is usual."""
DEVIATIONS = 5.0
"""The last gap has to stand this many robust standard deviations above those."""
LONGER_HELPS = 0.75
"""Averaged weights resemble those of a long stretch of training, so a longer average of the statistics does
better, here by a quarter; where weights drift a shorter one does."""


def check(losses: Losses, layers: LayerTable, history: History) -> Finding:
    """Compare the probe after the last step with the probes during training, and with the present weights' own."""
    course = losses.course
    known = any(e.kind == "averaged" and e.step == losses.step for e in history.manifest.events)
    if not losses.evaluated or len(losses.steps) < (1 if known else LEAST_BEFORE + 1):
        return not_evaluated("It takes a few probes during training and one after it.")
    inference, pooled = (course[k] - course["batch"] for k in ("inference", "recalibrated"))
    if np.isnan([inference[-1], pooled[-1]]).any() or losses.step != history.last_step:
        return not_evaluated("It takes a probe after the last step.")
    present = float(course["recalibrated_now"][-1])
    usual = [robust.median(x[:-1]) for x in (inference, pooled)]
    at_last = [
        Gap(float(x[-1]), 0.0, losses.harm(float(x[-1]), float(course["batch"][-1]))) for x in (inference, pooled)
    ]
    sudden = all(
        g.value - b > DEVIATIONS * 1.4826 * robust.median(np.abs(x[:-1] - b)) and losses.harm(b) < WARNING_HARM
        for g, b, x in zip(at_last, usual, (inference, pooled), strict=True)
    )
    over_batch = judging.severity_of(at_last[0]) if sudden and at_last[1].at_least(WARNING_HARM) else Severity.NONE
    own = _own_serve(losses, present)
    if own.rank <= Severity.WARNING.rank:
        over_batch = judging.severity_of(at_last[0]) if known else over_batch
    elif not np.isnan(present):
        # One probe stands out from a few before it by chance; statistics of the weights have to do better, too.
        over_batch = Severity.NONE
    foreign = own if known or _resembles_a_long_average(losses, layers, usual[1]) else Severity.NONE
    severity = min(over_batch, judging.at_most(foreign, Severity.WARNING), key=lambda s: s.rank)
    if severity in (Severity.NONE, Severity.INFO):
        return passed("The statistics after the last step are those of the weights.")
    those = f", while statistics of these weights give {judging.number(present)}" if not np.isnan(present) else ""
    headline = (
        f"After the last step inference stands at {judging.number(float(course['inference'][-1]))}, and statistics "
        f"of the last batches of training do no better ({judging.number(float(course['recalibrated'][-1]))}){those}: "
        "the weights were exchanged for averaged ones, and the moving statistics belong to the others."
    )
    return Finding(
        Status.FAIL,
        headline,
        severity,
        first_step=losses.step,
        last_step=losses.step,
        evidence={
            "after": Evidence("inference - batch after the last step", at_last[0].value, usual[0]),
            "recalibrated": Evidence("recalibrated - batch after the last step", at_last[1].value, usual[1]),
            "present": Evidence("inference on statistics of the present weights", present),
        },
        ruled_out=(
            ("stale statistics", "those of the last batches of training do no better"),
            ("drift", "the optimizer has use_ema, whose averages fit puts in at its end")
            if known
            else ("drift", "during training the statistics of the last batches served"),
        ),
        fix="# On the averaged weights:\n" + fixes.RECALIBRATE,
        next="Inference with the averaged weights comes down to batch mode.",
        headline=headline,
    )


def _own_serve(losses: Losses, present: float) -> Severity:
    """Severity of what inference loses against statistics of the present weights, and pooled ones lose as well."""
    newest = min(float(losses.course[kind][-1]) for kind in ("inference", "recalibrated"))
    if np.isnan(present):
        return Severity.NONE
    return judging.severity_of(Gap(newest - present, 0.0, losses.harm(newest - present, present)))


def _resembles_a_long_average(losses: Losses, layers: LayerTable, usual: float) -> bool:
    """Whether a long average of training's statistics does better at the end than its newest ones."""
    used = float(np.max(layers.beta[layers.updating], initial=0.0))
    longer = [loss for m, loss in losses.replayed.items() if m > used + 1e-9]
    newest = min(float(losses.course[kind][-1]) for kind in ("inference", "recalibrated"))
    return bool(longer) and losses.harm(usual) < WARNING_HARM and min(longer) < LONGER_HELPS * newest
