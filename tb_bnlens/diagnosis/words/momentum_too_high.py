"""The moving statistics still hold their initial values, and the run has no steps left to replace them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.facts.stale import UPDATED
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import (
    RELATIVE_ERROR,
    STALE,
    STANDARD,
    about_steps,
    added,
    as_set,
    be,
    count,
    felt,
    loss,
    momentum_range,
    no_statistics,
    not_loaded,
    of_what,
    percent,
    replayed,
    some_of,
    start_left,
    until,
    verb,
)
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words

RECALIBRATE_AT_END = """\
# No momentum that was replayed serves a run of this length. Take the statistics at the end of training:
import tb_bnlens

tb_bnlens.recalibrate(model, data, batches=200)
"""
BEFORE_TRAINING = "# If they were not saved, take new ones before training:\n"


def passed(f: Facts, _d: Decision) -> str:
    """What is left of the start."""
    if not f.starting.any():
        return f"{start_left(f)}, and no layer lags because of it."
    if f.outlook.will_converge:
        planned = f"{f.outlook.remaining:,} are planned" if f.outlook.planned else "training continues"
        if f.outlook.steps <= 0:
            return f"It takes no more steps until {until(f)}, and {planned}."
        needed = about_steps(f.outlook.steps, f.outlook.interval, f" more until {until(f)}")
        return f"It takes {needed}; {planned}."
    return f"{start_left(f)}, and the loss does not depend on it."


def failed(f: Facts, d: Decision) -> Said:
    """Steps needed against steps there are, and the momentum to try."""
    beta = f.layers.beta[f.starting]
    n, advice = len(d.layers), f.advised_momentum
    set_to = "" if advice is None else f"{as_set(f, advice):g}"
    needs = _needs(f, beta)
    steps = max(f.outlook.last_step, f.manifest.ended_step or 0)  # an interrupted run ends after its last record
    made = f"{steps:,}" if needs else count(steps, "step")
    had = f"this run {'had' if f.outlook.remaining == 0 else 'has had'} {made}"
    if f.start_was_frozen:
        had += f", of which {f.start_steps:,.0f} updated {'it' if n == 1 else 'them'}"
    if f.checked and not f.last_step:
        had = f"what is left of them is as after {f.outlook.last_step:,}"
        if not f.outlook.last_step:
            left = percent(robust.median(f.layers.memory[f.starting]))
            had = f"{left} is left, as in a model of hardly any steps, or in a slow average of weights"
    if f.outlook.remaining and f.outlook.planned:
        had += f" and {f.outlook.remaining:,} {be(f.outlook.remaining)} left"
    summary = (
        f"{some_of(n, len(f.layers.names))} still {verb(n, 'hold')} too much of {'its' if n == 1 else 'their'} initial "
        f"statistics. {needs or _left(f, beta)}; {had}.{not_loaded(f)}"
    )
    # Early in a training the initial statistics may serve better than later ones.
    later = f.advised_loss if math.isfinite(f.advised_loss) else f.typical("recalibrated")
    serves = d.severity is Severity.INFO and later > f.typical("inference")
    is_to_blame = not (serves or f.start_is_missing)
    if advice is not None and math.isfinite(f.advised_loss) and is_to_blame:
        summary += f" Replayed with momentum {set_to}, {replayed(f, advice)}{_least(f)}."
    summary += felt(f, d.severity)
    return Said(
        summary,
        evidence=_evidence(f),
        rescue=code.RECALIBRATE if d.severity > Severity.INFO else "",
        rescued="recalibrated",
        fix=_fix(f) if is_to_blame else _load(f),
        next=_expected(f) if is_to_blame else "",
    )


def _least(f: Facts) -> str:
    """The replay that does better yet."""
    best = f.best_replay
    return "" if best is None else f" ({loss(f, f.replayed[best])} with {as_set(f, best):g})"


def _expected(f: Facts) -> str:
    if not math.isfinite(f.advised_loss):
        return f"Inference loss within {percent(f.layers.tolerance)} of the loss with batch statistics."
    near = loss(f, f.advised_loss)
    return f"Inference loss near {near} on the same batches, and nothing left of the initial statistics."


def _fix(f: Facts) -> str:
    if f.checked and not f.outlook.last_step:
        return ""  # of a training that was hardly begun, no momentum is to blame
    return RECALIBRATE_AT_END if f.advised_momentum is None else code.set_momentum(f, f.advised_momentum)


def _load(f: Facts) -> str:
    return code.load_statistics(f) + BEFORE_TRAINING + code.RECALIBRATE if f.start_is_missing else ""


def _needs(f: Facts, beta: NDArray[np.float64]) -> str:
    """Empty where the loss has arrived before the statistics."""
    if f.needed_steps <= f.start_steps:
        return ""
    needed = about_steps(f.needed_steps, f.needed_interval, f" until {until(f)}")
    return f"Momentum {momentum_range(f, beta)} needs {needed}"


def _left(f: Facts, beta: NDArray[np.float64]) -> str:
    left, updates = (robust.median(x[f.starting]) for x in (f.layers.memory, f.layers.updates))
    # A branch that few batches take is updated in few steps.
    after = f" after {count(round(updates), 'update')}" if updates < UPDATED * f.outlook.last_step else ""
    # So small a share is within tolerance, unless the start differed by several times the statistics themselves.
    off = " of a start that was far off" if left < f.layers.tolerance else ""
    return f"With momentum {momentum_range(f, beta)}, {percent(left)} is left{after}{off}"


def _evidence(f: Facts) -> dict[str, Evidence]:
    starting, beta = f.starting, f.layers.beta[f.starting]
    advice = None if f.advised_momentum is None else as_set(f, f.advised_momentum)
    price = f.advised_price
    evidence = {
        "memory": Evidence(
            "share of the initial statistics left (median layer)", robust.median(f.layers.memory[starting])
        )
    }
    if _needs(f, beta):
        evidence["steps_needed"] = Evidence(
            f"steps to converge, from the start ({of_what(f)})",
            f.needed_steps,
            f.outlook.last_step,
            "steps",
            "run length",
        )
    evidence["momentum"] = Evidence("momentum", momentum_range(f, beta))
    evidence["error"] = Evidence(
        RELATIVE_ERROR, robust.median(f.layers.error[starting]), f.layers.tolerance, against="tolerance"
    )
    if price is not None:
        evidence["advised"] = Evidence(
            f"steps to converge with momentum {advice:g}, from the start (median layer)",
            price.updates / float(np.median(f.layers.updates_per_step[starting])),
            f.needed_steps,
            "steps",
            "with the present one",
        )
        if math.isfinite(price.noise):
            evidence["advised_noise"] = Evidence(
                f"batch noise in the moving mean with momentum {advice:g} (median layer)", price.noise, None, STANDARD
            )
        if math.isfinite(price.lag):
            evidence["advised_lag"] = Evidence(
                f"lag from drift with momentum {advice:g} (median layer)", price.lag, None, STANDARD
            )
    if math.isfinite(f.shrink):
        evidence["shrink"] = Evidence(
            "error left by each update, as a factor", f.shrink, float(np.median(beta)), against="expected"
        )
    if not math.isnan(f.stale.drop):
        evidence["stale"] = Evidence("metric lost to stale statistics (recalibrated - inference)", f.stale.drop)
    elif f.stale.known and (f.parts is not None or f.losses.windows_serve):
        evidence["stale"] = added(f, STALE, f.stale)
    return evidence


WORDS = Words(
    name="momentum too high",
    title="The momentum suits the length of the run",
    failure_title="Momentum too high for this run",
    description="Each update replaces 1 - momentum of a moving statistic. Training normalizes with the batch and never "
    "notices; inference uses whatever is left of the initial values. Steps to converge: the least n with error * "
    "momentum^n within tolerance.",
    in_torch={
        "name": "momentum too small",
        "failure_title": "Momentum too small for this run",
        "description": "Each update replaces the share `momentum` of a running statistic. Training normalizes with the "
        "batch and never notices; eval mode uses whatever is left of the initial values. Steps to converge: the least "
        "n with error * (1 - momentum)^n within tolerance.",
    },
    absent="No layer's moving statistics are being updated.",
    unknown=no_statistics,
    passed=passed,
    failed=failed,
)
