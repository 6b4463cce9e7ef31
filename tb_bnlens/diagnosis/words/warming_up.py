"""The moving statistics still hold their initial values, and the steps that are left will replace them."""

from __future__ import annotations

import math

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.words.phrases import (
    about_steps,
    loss,
    no_statistics,
    not_loaded,
    of_what,
    percent,
    start_left,
    validation_suffers,
    when,
)
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def passed(f: Facts, _d: Decision) -> str:
    """What is left of the start."""
    felt = "the loss does not depend on it" if f.starting.any() else "no layer lags because of it"
    return f"{start_left(f)}, and {felt}."


def failed(f: Facts, d: Decision) -> Said:
    """The step by which the statistics should have converged."""
    n, total, remaining = len(d.layers), len(f.layers.names), f.outlook.remaining
    at = math.ceil(f.outlook.last_step + f.outlook.steps)
    where = "" if n == total else f" of {n:,} of {total:,} layers"
    left, now = f.layers.memory[f.starting], ""
    if f.stale.known:
        now = f" Inference loss is {loss(f, f.now('inference'))} {when(f)}, against {loss(f, f.now('batch'))} with "
        now += "batch statistics."
    needed = about_steps(f.outlook.steps, f.outlook.interval, " from now")
    of = f"{at:,} of {f.outlook.last_step + remaining:,}" if f.outlook.planned else f"{at:,}"
    by, there = f"should converge by about step {of}. Do not trust validation metrics before then", f"{at:,}, {needed}"
    if f.outlook.steps <= 0:
        by, there = f"should be about to converge at step {of}. Do not trust earlier validation metrics", f"{at:,}"
    if not f.outlook.planned:
        now += " How many steps are planned is not known: if training ends before, recalibrate."
    return Said(
        f"The moving statistics{where} are still warming up and {by}.{now}{validation_suffers(f)}{not_loaded(f)}",
        evidence={
            "steps": Evidence(
                f"steps to converge, from now ({of_what(f)})", f.outlook.steps, remaining, "steps", "steps left"
            ),
            "memory": Evidence("share of the initial statistics left (median layer)", robust.median(left)),
        },
        next=f"Inference loss within {percent(f.layers.tolerance)} of the loss with batch statistics by step {there}.",
    )


WORDS = Words(
    name="warm-up",
    title="Warm-up does not affect inference",
    failure_title="Moving statistics are warming up",
    description="Early in a run inference is worse than training mode because the moving statistics still hold their "
    "initial values. This is expected while enough steps are left. Until then validation metrics mean nothing.",
    unknown=no_statistics,
    absent="No layer's moving statistics are being updated.",
    passed=passed,
    failed=failed,
)
