"""How rules turn gaps and distances into a severity, and numbers into words. Not a rule itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis.loss_gap import ERROR_HARM, NOTE_HARM, WARNING_HARM, Gap, Losses
from tb_bnlens.history import History
from tb_bnlens.numbers import number as number
from tb_bnlens.numbers import times
from tb_bnlens.rules.rule import Severity

ESTIMATE_DISTANCE = 0.1
"""Without losses: the largest layer distance from which three measured networks lost a factor of 2.5 or more
(DESIGN.md, section 4). An estimate is never more than a warning."""


def severity_of(gap: Gap) -> Severity:
    """Severity of a measured gap."""
    for harm, severity in ((ERROR_HARM, Severity.ERROR), (WARNING_HARM, Severity.WARNING), (NOTE_HARM, Severity.INFO)):
        if gap.at_least(harm):
            return severity
    return Severity.NONE


def severity_of_stale(losses: Losses) -> Severity:
    """Severity where statistics do not belong to the batches: against batch mode, and against what fitting ones give.

    Batch mode pays for its own noise, so inference can be no worse than it and yet far from what it could be; that
    alone is a warning at most.
    """
    possible = severity_of(losses.gap("inference", "recalibrated"))
    return min(severity_of(losses.gap("inference", "batch")), at_most(possible, Severity.WARNING), key=lambda s: s.rank)


def at_most(severity: Severity, limit: Severity) -> Severity:
    """The severity, or the limit where that is less grave."""
    return max(severity, limit, key=lambda s: s.rank)


def severity_or_estimate(
    losses: Losses, measured: Severity, distance: NDArray[np.float64], mask: NDArray[np.bool_]
) -> Severity:
    """The measured severity where losses were evaluated, else what the masked layers' distance makes one expect."""
    if losses.evaluated:
        return measured
    largest = float(np.nanmax(distance[mask], initial=0.0))
    return Severity.WARNING if largest >= ESTIMATE_DISTANCE else Severity.INFO


def estimate_note(losses: Losses) -> str:
    """A sentence for findings whose severity is an estimate; empty where the losses were measured."""
    if losses.evaluated:
        return ""
    return " The losses were not evaluated, so the severity is an estimate from the distance of the statistics."


def count(n: int, noun: str = "layer") -> str:
    """A number of things: "1 layer", "52 layers"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def verb(n: int, plural: str) -> str:
    """A verb for so many: "remembers" for 1, "remember" for others."""
    return f"{plural}s" if n == 1 else plural


def layers_of(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """Indices of a mask."""
    return tuple(int(i) for i in np.flatnonzero(mask))


def momenta(values: NDArray[np.float64]) -> str:
    """The momenta of some layers in text: "0.99" or "0.9 to 0.999"."""
    low, high = float(np.min(values)), float(np.max(values))
    return f"{low:.6g}" if math.isclose(low, high, abs_tol=1e-6) else f"{low:.6g} to {high:.6g}"


def steps_words(steps: float) -> str:
    """Steps in text: "4,098 steps"; "no number of steps" for never."""
    return (
        f"{math.ceil(steps):,} step{'s' if math.ceil(steps) != 1 else ''}"
        if math.isfinite(steps)
        else "no number of steps"
    )


def worse(upper: float, lower: float, natural_zero: bool = True) -> str:
    """How much worse one loss is than another: "12,800x worse", or a difference where ratios mean nothing."""
    if not math.isfinite(upper):
        return "not finite"
    if natural_zero and lower > 0:
        ratio = upper / lower
        return f"{times(ratio)}x worse" if ratio >= 2 else f"{100 * (ratio - 1):.0f}% worse"
    return f"worse by {number(upper - lower)}"


def first_step(history: History) -> int | None:
    """The first step of the record, None where it is empty."""
    return min((int(s[0]) for s in (history.steps, history.loss_steps) if len(s)), default=None)


def names_words(names: Sequence[str], shown: int = 3) -> str:
    """Layer names in text, the first few and how many more."""
    head = ", ".join(names[:shown])
    return head if len(names) <= shown else f"{head} and {len(names) - shown} more"


def no_statistics(losses: Losses) -> str:
    """Why there is nothing to compare the moving statistics with."""
    waiting = "No batch statistics to compare with yet; that takes two snapshots."
    return losses.not_evaluated.get("distance_rms", waiting)
