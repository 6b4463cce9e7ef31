"""The top of the report: what the losses say, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.loss_gap import NOTE_HARM
from tb_bnlens.diagnosis.decide import Status
from tb_bnlens.diagnosis.diagnose import Diagnosis
from tb_bnlens.diagnosis.severity import Severity, of_gap
from tb_bnlens.diagnosis.words.phrases import be, count, sentence, times
from tb_bnlens.numbers import number


def verdict(facts: Facts, diagnoses: Sequence[Diagnosis]) -> tuple[str, list[str]]:
    """The headline and the reasons.

    Args:
        facts: of the run.
        diagnoses: from ``diagnose``, in its order.

    Returns:
        What the losses say, in one sentence, and why: an entry for each cause that counts, for what is silenced and
        for what could not be judged.
    """
    history = facts.history
    if not facts.has_layers and history.problems:
        return history.problems[0], []
    if facts.has_layers and history.last_step is None:
        return "Nothing is recorded yet.", ["Records appear as soon as training has done its first steps."]
    reasons, healthy = _reasons(diagnoses)
    if not facts.has_layers:
        return f"The model has no BatchNorm layers{'' if reasons else ', so there is nothing to look at'}.", reasons
    headline = _headline(facts, healthy)
    if not healthy and reasons and not facts.losses.diverged and not facts.gap.known:
        # Without losses the statistics have the word, and what is missing comes last.
        return reasons[0], [*reasons[1:], headline]
    return headline, reasons


def _reasons(diagnoses: Sequence[Diagnosis]) -> tuple[list[str], bool]:
    """The reasons, and whether there is neither one that the loss feels nor one that is silenced."""
    named = [d for d in diagnoses if d.counts]
    # A cause whose severity is capped still takes its share of the loss, so it is a reason.
    felt = [_reason(d) for d in named if d.decision.cost > Severity.INFO]
    silenced = [d for d in diagnoses if d.silenced]
    broken = sum(d.status is Status.ERROR for d in diagnoses)
    reasons = felt or _notes(named)
    if silenced:
        reasons.append(_silenced(silenced))
    if broken:
        reasons.append(f"{count(broken, 'cause')} could not be judged.")
    return reasons, not felt and not silenced


def _reason(d: Diagnosis) -> str:
    return d.said.reason or d.said.summary


def _notes(named: Sequence[Diagnosis]) -> list[str]:
    if not named:
        return []
    more = f" (and {count(len(named) - 1, 'more note')})" if len(named) > 1 else ""
    return [f"Worth a note: {_reason(named[0]).rstrip('.')}{more}."]


def _silenced(silenced: Sequence[Diagnosis]) -> str:
    what = "; ".join(f"{d.words.failure_title} ({d.decision.severity.word})" for d in silenced)
    return f"{count(len(silenced), 'finding')} {be(len(silenced))} silenced: {what}."


def _headline(f: Facts, healthy: bool) -> str:
    if f.losses.diverged:
        return "Training has diverged: the loss in training mode is not finite."
    if not f.gap.known:
        return _without_losses(f, healthy)
    inference, batch, where = _compared(f)
    if math.isinf(inference):
        return f"Inference loss is not finite; with batch statistics it is {number(batch)} ({where})."
    if of_gap(f.gap) > Severity.INFO:
        much = times(inference, batch, f.losses.natural_zero)
        return f"Inference loss is {much} the loss with batch statistics ({where})."
    word = "matches"
    if f.losses.harm(abs(inference - batch)) >= NOTE_HARM:
        word = "is above" if inference > batch else "is below"
    said = f"inference loss {number(inference)} {word} the loss with batch statistics ({number(batch)}) at {where}"
    return f"No BatchNorm problem found: {said}." if healthy else f"{sentence(said)}."


def _compared(f: Facts) -> tuple[float, float, str]:
    """Inference and batch losses of the last probe, or the medians where that one is out of line with its window."""
    losses = f.losses
    inference, batch, step = f.now("inference"), f.now("batch"), f"step {losses.step or 0:,}"
    if of_gap(losses.judge(np.array([inference - batch]))) < of_gap(f.gap):
        return f.typical("inference"), f.typical("batch"), f"{step}, median of the last probes"
    return inference, batch, step


def _without_losses(f: Facts, healthy: bool) -> str:
    measured = "The paired losses were not evaluated in this run" if f.losses.not_evaluated else "No loss is probed yet"
    known = f.layers.distance[~np.isnan(f.layers.distance)]
    if not healthy:
        return f"{measured}."
    if not len(known):
        reason = f.losses.not_evaluated.get("distance_rms", "The statistics of the layers are not measured yet.")
        return f"{measured}. {reason}"
    return (
        f"{measured}; the statistics show no problem in {count(len(f.layers.names), 'BatchNorm layer')} (distance "
        f"{number(float(np.median(known)))} batch standard deviations in the median layer)."
    )
