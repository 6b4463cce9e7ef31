"""The top of the report: what the losses say, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.lag import SPARSE
from tb_bnlens.analysis.loss_gap import NOTE_HARM, WARNING_HARM
from tb_bnlens.diagnosis.conditions import on_validation
from tb_bnlens.diagnosis.decide import Status
from tb_bnlens.diagnosis.diagnose import Diagnosis
from tb_bnlens.diagnosis.severity import Severity, of_gap
from tb_bnlens.diagnosis.words.code import check
from tb_bnlens.diagnosis.words.phrases import be, changed, count, loss, metric, rival, sentence, times
from tb_bnlens.numbers import number

MOST_METRICS = 2

ABOVE = "is above"
"""How inference stands to its rival where the difference is worth a note."""


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
    reasons += _unmeasured(facts) + _of_the_past(facts, reasons)
    if not facts.has_layers:
        return _without_layers(facts, bool(reasons)), reasons
    behind = (
        any(d.counts and d.decision.cost > Severity.INFO for d in diagnoses) and on_validation(facts) > Severity.INFO
    )
    shifted = behind or any(d.id == "validation-shift" and d.counts for d in diagnoses)
    headline = _shifted(facts) if shifted and not of_gap(facts.gap) > Severity.INFO else _headline(facts, healthy)
    if of_gap(facts.gap) > Severity.INFO:
        reasons += _asides(facts)
    if not healthy and reasons and not facts.losses.diverged and not facts.gap.known:
        # Without losses the statistics have the word, and what is missing comes last.
        return reasons[0], [*reasons[1:], headline]
    return headline, reasons


def _without_layers(f: Facts, found: bool) -> str:
    """What the two modes say where no layer is recorded: code of the user's may normalize as well."""
    training, inference = (loss(f, f.now(kind)) for kind in ("training", "inference"))
    if of_gap(f.gap) > Severity.INFO:
        return (
            f"The loss is {inference} at inference and {training} in training mode, and the model has no BatchNorm "
            "layers that BN Lens can read."
        )
    if found:
        return "The model has no BatchNorm layers with statistics for inference."
    if not f.gap.known:
        return "The model has no BatchNorm layers, so there is nothing to look at."
    return f"The model has no BatchNorm layers. The loss is {training} in training mode and {inference} at inference."


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


def _unmeasured(f: Facts) -> list[str]:
    """What an interruption leaves out: no measurement is made once an exception is under way."""
    at, ended = f.losses.step if f.evidence is None else f.evidence.step, f.manifest.ended_step
    if f.manifest.ended != "interrupted" or at is None or ended is None or at >= ended:
        return []
    return [
        f"Training was interrupted at step {ended:,}, and the last measurement is of step {at:,}: {check(f)} measures "
        "the present model."
    ]


def _of_the_past(f: Facts, said: Sequence[str]) -> list[str]:
    """That the run is judged by its later batches, where no cause has said so."""
    told = changed(f)
    return [told] if told and not any(told in reason for reason in said) else []


def _is_of_two_kinds(f: Facts) -> bool:
    """Whether the data changed and the run is judged by batches from before as well."""
    return f.evidence is not None and not f.evidence.earlier and bool(changed(f))


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
        last, losses = f.last_finite, "Training has diverged: the loss in training mode is not finite"
        return (
            f"{losses}." if last is None else f"{losses}; the last that was, at step {last[0]:,}, is {number(last[1])}."
        )
    if not f.gap.known:
        return _without_losses(f, healthy)
    inference, batch, where = _compared(f)
    held_against = rival(f)
    of_rival = held_against.removeprefix("the loss ")
    if math.isinf(inference):
        return f"Inference loss is not finite; {of_rival} it is {loss(f, batch)} ({where})."
    both = f"{loss(f, inference)} against {loss(f, batch)}, " if f.measured is not None else ""
    if f.measured is not None and f.measured.lost and of_gap(f.gap) > Severity.INFO:
        name, there = f.measured.lost, f.measured.passes[f.measured.rival].metrics
        here = metric(name, f.measured.passes["inference"].metrics[name])
        return (
            f"Inference gives {name} {here}, {of_rival} it is {metric(name, there[name])}; the loss does not show it "
            f"({both}{where})."
        )
    if of_gap(f.gap) > Severity.INFO:
        much = times(inference, batch, f.losses.natural_zero)
        return f"Inference loss is {much} {held_against} ({both}{where}){_means(f)}."
    if not healthy and f.measured is not None and f.measured.rival == "batch_as_trained":
        # Training sees the same fault, so it shows in neither loss.
        everywhere = f.measured.gap("inference", "batch")
        if of_gap(everywhere) > Severity.INFO:
            better = loss(f, f.measured.mean("batch"))
            return (
                f"Inference loss {loss(f, inference)} is what training sees; with batch statistics in every layer it "
                f"is {better} ({where})."
            )
    said = (
        f"inference loss {loss(f, inference)} {_relation(f, inference, batch)} {held_against} "
        f"({loss(f, batch)}{_at(f, where)}"
    )
    if not healthy and f.measured is not None and of_gap(f.stale) > Severity.INFO:
        # Statistics of a batch's few rows cost as much as the lag does.
        return f"{sentence(said)}; recalibrated it would be {loss(f, f.measured.mean('recalibrated'))}."
    if f.never_by_batch:
        return f"{sentence(said)}: training itself runs in inference mode."
    if f.trains_on_constant and f.constant_far and not of_gap(f.constant_part) > Severity.INFO:
        return f"{sentence(said)}. That cannot show what constant statistics cost, since training runs on them too."
    return _of_healthy(f, said, _relation(f, inference, batch) == ABOVE) if healthy else f"{sentence(said)}."


def _of_healthy(f: Facts, said: str, above: bool) -> str:
    """What the two losses, and whether inference is above, say of a run in which no cause counts."""
    if above:
        small = "is too small for a warning" if f.gap.significant else _by_chance(f)
        if f.gap.significant and f.gap.seen < WARNING_HARM <= f.gap.harm:
            small = f"is of {count(len(f.losses.judged), 'probe')}, and those before show less"
        return f"{sentence(said)}. The difference {small}."
    if _is_of_two_kinds(f):
        return f"{sentence(said)}. That says little of the present data, which are others than before."
    if f.measured is not None and f.stale.at_least(NOTE_HARM):
        return f"No BatchNorm problem found: {said}; recalibrated it would be {loss(f, f.typical('recalibrated'))}."
    return f"No BatchNorm problem found: {said}."


def _by_chance(f: Facts) -> str:
    """What else would tell, where a difference that matters does not stand out from the spread of the batches."""
    if f.measured is None or f.gap.harm < WARNING_HARM:
        return "may be chance"
    rows = f"{int(f.measured.evidence.batch_sizes.sum()):,} rows are too few to tell"
    return f"may be chance: {rows}, and {check(f, ', batches=200')} measures more"


def _shifted(f: Facts) -> str:
    """What both modes give on both data, where training data alone show nothing."""
    there, by_batch = f.on_validation("inference"), f.on_validation("batch")
    much = times(there, by_batch, f.losses.natural_zero)
    at = f.losses.step if f.evidence is None else f.evidence.step
    return (
        f"On validation data, inference loss is {much} the loss with batch statistics ({loss(f, there)} against "
        f"{loss(f, by_batch)}); on training data it is {loss(f, f.typical('inference'))} against "
        f"{loss(f, f.rival_loss)} (step {at or 0:,})."
    )


def _relation(f: Facts, inference: float, batch: float) -> str:
    if inference > batch and f.losses.harm(inference - batch) >= NOTE_HARM:
        return ABOVE
    if _below(f, batch - inference):
        return "is below"
    return "is not above" if f.losses.harm(batch - inference) >= NOTE_HARM else "matches"


def _at(f: Facts, where: str) -> str:
    return f") at {where}" if f.measured is None else f", {where})"


def _means(f: Facts) -> str:
    """What a gap means to a user: the metrics that differ between the modes, as they are printed."""
    if f.measured is None:
        return ""
    both = f.measured.metrics("inference", f.measured.rival)
    printed = [(name, metric(name, here), metric(name, there)) for name, (here, there) in both.items()]
    parts = [f"{name} {here} instead of {there}" for name, here, there in printed if here != there][:MOST_METRICS]
    return f": {', '.join(parts)}" if parts else ""


def _asides(f: Facts) -> list[str]:
    """How a gap spreads over the rows, and the training that it undoes."""
    said = []
    few = math.nan if f.measured is None else f.measured.few_rows("inference", f.measured.rival)
    if not math.isnan(few):
        said.append(f"5% of the rows make up {100 * few:.0f}% of the difference.")
    if f.as_at_step is not None:
        step = f"{float(f'{f.as_at_step:.2g}'):,.0f} of {f.last_step:,}"
        said.append(f"With batch statistics the loss was down to this inference loss by about step {step}.")
    return said


def _below(f: Facts, difference: float) -> bool:
    if f.measured is not None:
        return f.measured.gap(f.measured.rival, "inference").at_least(NOTE_HARM)
    return f.losses.harm(difference) >= NOTE_HARM


def _compared(f: Facts) -> tuple[float, float, str]:
    """Inference loss and its rival: means over many batches, else of the last probe, or the medians of the last ones
    where that one is out of line.
    """
    losses = f.losses
    if f.measured is not None:
        m = f.measured
        return m.mean("inference"), m.mean(m.rival), f"mean of {m.batches} batches at step {m.evidence.step:,}"
    inference, batch, step = f.now("inference"), f.now("batch"), f"step {losses.step or 0:,}{_since(f)}"
    if of_gap(losses.judge(np.array([inference - batch]))) < of_gap(f.gap):
        return f.typical("inference"), f.typical("batch"), f"{step}, median of the last probes"
    return inference, batch, step


def _since(f: Facts) -> str:
    """How far training has gone on since the last probe, where that is long."""
    return f", and training went on to step {f.last_step:,}" if f.losses.old else ""


def _without_losses(f: Facts, healthy: bool) -> str:
    measured = "No loss is measured yet"
    if f.losses.not_evaluated:
        measured = f"The paired losses were not evaluated in this {'check' if f.checked else 'run'}"
    known = f.layers.distance[~np.isnan(f.layers.distance)]
    if not healthy:
        return f"{measured}."
    if not len(known):
        reason = f.losses.not_evaluated.get("distance_rms", "The statistics of the layers are not measured yet.")
        return f"{measured}. {reason}"
    reason = f.losses.not_evaluated.get("losses", "")
    because = f"{measured}{': ' + reason.rstrip('.') if reason else ''}."
    old = int((f.layers.lagging & f.layers.outdated).sum())
    if old:
        return (
            f"Inference is not judged. {because} Whether the statistics of {count(old, 'BatchNorm layer')} lag is not "
            f"known: {SPARSE}. {check(f)} measures it."
        )
    return (
        f"Inference is not judged. {because} The statistics alone show no problem in "
        f"{count(len(f.layers.names), 'BatchNorm layer')} (distance {number(float(np.median(known)))} batch standard "
        "deviations in the median layer)."
    )
