"""Numbers, counts and comparisons in text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.loss_gap import NOTE_HARM, WARNING_HARM, Gap
from tb_bnlens.analysis.measured import Measured
from tb_bnlens.analysis.metrics import DROP, is_share, lost
from tb_bnlens.diagnosis.conditions import on_validation
from tb_bnlens.diagnosis.severity import Severity, of_gap
from tb_bnlens.diagnosis.words.words import Evidence
from tb_bnlens.metadata import EventKind, replay_row
from tb_bnlens.numbers import as_set as in_convention
from tb_bnlens.numbers import number as number
from tb_bnlens.numbers import times as as_times


def loss(f: Facts, value: float) -> str:
    """A loss in text, with as many digits as tell a hundredth of the unit that losses are judged by.

    Example:
        Of a loss whose rows differ by 0.04, 10.277 and 10.035 are distinguished, not only 10.3 and 10.
    """
    if not (math.isfinite(value) and value and f.losses.unit > 0) or (abs(value) >= 1000 and f.losses.unit >= 1):
        return number(value)
    digits = 2 + math.ceil(math.log10(abs(value) / f.losses.unit))
    return number(value) if digits <= 3 or abs(value) >= 1e6 else f"{value:,.{min(digits, 7)}g}"


def signed(value: float) -> str:
    """A difference of losses: "+1.2", "-0.3", "0"."""
    return f"+{number(value)}" if value > 0 else number(value)


def percent(share: float) -> str:
    """A share as a percentage: "67%"."""
    return f"{100 * share:.2g}%" if abs(share) < 0.995 else "100%"


def start_left(f: Facts) -> str:
    """How much of the initial statistics is left: "At most 3% of the initial statistics is left"."""
    share = float(np.nanmax(f.layers.memory[f.layers.updating], initial=0.0))
    much = "Nothing" if share < 1e-4 else f"At most {percent(share)}"
    return f"{much} of the initial statistics is left"


def not_loaded(f: Facts) -> str:
    """What is known of a start that trained weights do not have."""
    if not f.start_is_missing:
        return ""
    return (
        " When recording began, these statistics were new and the layers' weights were not: if the weights were "
        "loaded, the statistics were not loaded with them."
    )


def count(n: int, noun: str = "layer", plural: str = "") -> str:
    """A number of things: "1 layer", "52 layers"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {plural or noun + 's'}"


def some_of(n: int, total: int, noun: str = "BatchNorm layer") -> str:
    """Part of a number of things: "All 52 BatchNorm layers", "Both BatchNorm layers", "3 of 52 BatchNorm layers"."""
    if n == total:
        return f"The {noun}" if n == 1 else f"Both {noun}s" if n == 2 else f"All {n:,} {noun}s"
    return f"{n:,} of {count(total, noun)}"


def be(n: int) -> str:
    """The verb for so many: "is" or "are"."""
    return "is" if n == 1 else "are"


def verb(n: int, plural: str) -> str:
    """A verb for so many: "uses" or "varies" for 1, "use" or "vary" for others."""
    one = f"{plural[:-1]}ies" if plural.endswith("ry") else f"{plural}s"
    return one if n == 1 else plural


def part_of(n: int, total: int) -> str:
    """Part of the layers within a sentence: "all 52 BatchNorm layers", "3 of 52 BatchNorm layers"."""
    text = some_of(n, total)
    return text[0].lower() + text[1:]


def sentence(text: str) -> str:
    """With a capital first letter."""
    return text[:1].upper() + text[1:]


def as_set(f: Facts, momentum: float) -> float:
    """A share that is kept as the momentum that users of the framework set: PyTorch's is the share that is replaced."""
    return in_convention(momentum, f.manifest.framework)


def momentum_range(f: Facts, values: NDArray[np.float64]) -> str:
    """The momentum of some layers, as users set it: "0.99" or "0.9 to 0.999"."""
    low, high = sorted(as_set(f, float(x)) for x in (np.min(values), np.max(values)))
    return f"{low:.6g}" if math.isclose(low, high, abs_tol=1e-6) else f"{low:.6g} to {high:.6g}"


def steps(value: float) -> str:
    """Steps in text: "4,098 steps"; "more steps than any run has" for never."""
    return count(math.ceil(value), "step") if math.isfinite(value) else "more steps than any run has"


NEVER = "it may never converge at this learning rate"


def about_steps(value: float, interval: tuple[float, float] = (math.nan, math.nan), then: str = "") -> str:
    """Steps to two digits, as estimates are no better, with their 80% interval where it is reliable.

    Args:
        value: how many.
        interval: its ends.
        then: what follows the steps: " from now".

    Example:
        >>> about_steps(4498, (4141, 5230))
        'about 4,500 steps (4,100 to 5,200)'
        >>> about_steps(4498, (4141, math.inf), " from now")
        'about 4,500 steps (at least 4,100, and it may never converge at this learning rate) from now'
        >>> about_steps(4143, (4141, math.inf), " from now")
        'at least 4,100 steps from now, and it may never converge at this learning rate'
    """
    low, high = interval
    # Two digits hardly tell values apart that differ by less than a twentieth.
    if math.isinf(high) and 1 <= low and value <= 1.05 * low < math.inf:
        return f"at least {steps(_two_digits(low))}{then}, and {NEVER}"
    return f"{_about(value, low, high)}{then}"


def _about(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        least = f"at least {number(_two_digits(low))} steps, and " if math.isfinite(low) else ""
        return f"{least}more steps than any run has"
    said = steps(value) if value < 1 else f"about {steps(_two_digits(value))}"
    if math.isnan(low) or math.isnan(high):
        return said
    least = number(_two_digits(low))
    if math.isinf(high):
        return f"{said} (at least {least}, and {NEVER})"
    most = number(_two_digits(high))
    return said if least == most else f"{said} ({least} to {most})"


def of_what(f: Facts) -> str:
    """What the run's steps to converge are those of: they are told by the loss where its forecast gets there."""
    return "inference loss" if f.outlook.by_loss else "slowest layer"


WARNING_FROM = "warning from"
"""What ``Facts.warning_loss`` is beside a difference of losses."""
STANDARD = "batch standard deviations"
"""Unit of a distance."""
RELATIVE_ERROR = "relative error of the moving statistics (95th percentile of the channels, median layer)"
JUMP = "inference - recalibrated, exceeded in one probe of ten"
STALE = "loss added by stale statistics (inference - recalibrated)"
LESS_BATCH = "inference - batch statistics"
"""The gap, as the losses of the report name its two ends."""


def when(f: Facts) -> str:
    """When the losses were measured: "now", or "at step 54" where training went on."""
    step = f.losses.step if f.evidence is None or f.measured is None else f.evidence.step
    return "now" if step is None or step >= f.last_step else f"at step {step:,}"


def until(f: Facts) -> str:
    """When they are over: "the inference loss converges"."""
    return f"the {of_what(f)} converges"


def _two_digits(value: float) -> float:
    whole = math.ceil(value)
    return round(whole, 1 - math.floor(math.log10(whole))) if whole >= 1 else whole


def times(upper: float, lower: float, natural_zero: bool = True) -> str:
    """One loss against a lower one: "12,800x", "35% above", or "0.3 above" where ratios mean nothing."""
    if not (natural_zero and lower > 0 and math.isfinite(upper)):
        return f"{number(upper - lower)} above"
    ratio = upper / lower
    return f"{as_times(ratio)}x" if ratio >= 2 else f"{100 * (ratio - 1):.0f}% above"


def names(all_of: Sequence[str], shown: int = 3) -> str:
    """Layer names, the first few and how many more."""
    head = ", ".join(all_of[:shown])
    return head if len(all_of) <= shown else f"{head} and {len(all_of) - shown} more"


def metric(name: str, value: float) -> str:
    """A compiled metric: "72.7%" where it is a share of 1."""
    return f"{100 * value:.1f}%" if is_share(name) and 0 <= value <= 1 else number(value)


def metrics(f: Facts, name: str, most: int = 2) -> list[str]:
    """The first compiled metrics of a pass: ["accuracy 72.7%"]; none where it has none."""
    found = {} if f.measured is None or not f.measured.has(name) else f.measured.passes[name].metrics
    return [f"{key} {metric(key, value)}" for key, value in found.items() if key != "loss"][:most]


def replayed(f: Facts, momentum: float) -> str:
    """What a momentum would have given: "inference loss would be 0.55 in place of 1,363", and the metrics where they
    tell the fault.
    """
    would, now = loss(f, f.replayed[momentum]), loss(f, f.now("inference"))
    said = f"inference loss would be {would}" + (f" in place of {now}" if now != would else "")
    told = metrics(f, replay_row(momentum)) if f.measured is not None and f.measured.lost else []
    return ", ".join([said, *told])


def recalibrated_would(f: Facts) -> str:
    """What statistics of many batches give, where that is worth a note: " Recalibrated, ... instead of 1.06."."""
    if f.parts is None or not f.stale.at_least(NOTE_HARM):
        return ""
    fresh, now = loss(f, f.typical("recalibrated")), loss(f, f.typical("inference"))
    return f" Recalibrated, inference loss would be {fresh} instead of {now}."


def no_statistics(f: Facts) -> str:
    """Why there is nothing to compare the moving statistics with."""
    waiting = "There are no batch statistics to compare with yet; that takes two snapshots."
    return f.losses.not_evaluated.get("distance_rms", waiting)


def no_losses(f: Facts) -> str:
    """Why the paired losses are not known."""
    reasons = " ".join(dict.fromkeys(f.losses.not_evaluated.values()))
    return reasons or "No probe has measured both losses yet."


ON_NEW_BATCHES = "the loss with batch statistics on new batches"


def rival(f: Facts) -> str:
    """What inference is held against: "the loss with batch statistics"."""
    if not f.has_layers:
        return "the loss in training mode"
    named = "" if f.measured is None else f.measured.rival
    return {
        "recombined": ON_NEW_BATCHES,
        "batch_as_trained": "the loss with batch statistics where training uses them",
    }.get(named, "the loss with batch statistics")


def modes(f: Facts) -> str:
    """The two losses that matter: "inference 15,127, batch statistics 1.18"."""
    as_trained = f.measured is not None and f.measured.rival == "batch_as_trained"
    named = "as training normalizes" if as_trained else "batch statistics"
    return f"inference {loss(f, f.typical('inference'))}, {named} {loss(f, f.rival_loss)}"


def against_batch(f: Facts) -> str:
    """Inference against batch statistics, with a verb."""
    much = times(f.typical("inference"), f.rival_loss, f.losses.natural_zero)
    if math.isinf(f.typical("inference")):
        return f"inference loss is not finite; with batch statistics it is {loss(f, f.rival_loss)}"
    return f"inference loss is {much} the loss with batch statistics ({modes(f)})"


def added(f: Facts, label: str, gap: Gap) -> Evidence:
    """A difference of losses beside the least that is a warning; alone where a metric makes the severity."""
    by_metric = f.measured is not None and f.measured.told_by_metric(gap)
    return Evidence(label, gap.value, None if by_metric else f.warning_loss, against=WARNING_FROM)


Pass = tuple[str, str]
"""A pass: in words, and by its name."""


def by_metric(
    gap: Gap,
    told: dict[str, Evidence],
    of: Measured | None,
    upper: Pass,
    lower: Pass,
    limit: float | None = DROP,
    upper_of: Measured | None = None,
) -> dict[str, Evidence]:
    """A difference as it is told; where a metric makes its severity, that metric in place of the limit.

    Args:
        gap: the difference.
        told: its evidence, by the key.
        of: measured the passes; None where nothing did.
        upper: the pass that may have lost.
        lower: the other one.
        limit: the drop from which it is a warning; None where it makes none.
        upper_of: measured the upper pass, where that is another one.
    """
    if of is None or not of.told_by_metric(gap):
        return told
    found = {key: replace(evidence, limit=None) for key, evidence in told.items()}
    here, there = (upper_of or of).passes.get(upper[1]), of.passes.get(lower[1])
    name = lost(here, there) if here is not None and there is not None else ""
    if name and here is not None and there is not None:
        values = there.metrics[name], here.metrics[name]
        label = f"{name} lost ({lower[0]} {metric(name, values[0])}, {upper[0]} {metric(name, values[1])})"
        found["metric"] = Evidence(label, values[0] - values[1], limit, against=WARNING_FROM)
    return found


def validation_suffers(f: Facts) -> str:
    """That stale statistics harm validation data, where training data do not show it; else empty."""
    if not on_validation(f) > of_gap(f.gap):
        return ""
    there = f"{loss(f, f.on_validation('inference'))} against {loss(f, f.on_validation('batch'))}"
    renewed = loss(f, f.on_validation("recalibrated"))
    return f" Validation data suffer ({there}); recalibrated statistics of training data serve them ({renewed})."


def felt(f: Facts, severity: Severity) -> str:
    """What validation data suffer where training data do not show it, or what a note says of the loss; else empty."""
    return validation_suffers(f) or (hardly_felt(f) if severity is Severity.INFO and f.evaluated else "")


def hardly_felt(f: Facts) -> str:
    """That a note takes little of the loss, as far as that is known: a probe or two may show a great difference."""
    if f.parts is None and f.gap.harm >= WARNING_HARM:
        return " Whether the loss depends on it is not sure yet."
    if not f.stale.harm >= NOTE_HARM:
        return " The loss hardly depends on it."
    # Where statistics are stale for another reason as well, this one alone is not known to matter.
    little = "That may be chance" if not f.stale.significant else "That is too little for a warning"
    return "" if of_gap(f.stale) > Severity.INFO else f" {little}."


def changed(f: Facts) -> str:
    """Since when the data are of another kind, where they changed in the course of training; else empty."""
    if f.evidence is None or f.measured is None:
        return ""
    if f.evidence.earlier:
        since = count(f.measured.batches, "batch", "batches")
        return f"The data changed by step {int(f.evidence.batch_steps[0]):,}, and the losses are of {since} since then."
    for step in (e.step for e in f.manifest.events if e.kind == EventKind.DATA_CHANGED):
        after = int((f.evidence.batch_steps >= step).sum())
        if 0 < after < f.measured.batches:
            advice = " Recalibrate on data like those of inference." if f.gap.significant else ""
            return (
                f"The data changed by step {step:,}, and {after} of the {f.measured.batches} measured batches "
                f"{be(after)} from since then: the losses are of both kinds of data.{advice}"
            )
    return ""
