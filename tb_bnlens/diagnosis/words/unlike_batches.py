"""Batches that are not drawn from one distribution: sorted by class, or domains that alternate."""

from __future__ import annotations

import math

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.loss_gap import NOTE_HARM, WARNING_HARM
from tb_bnlens.diagnosis.compositions import LITTLE_LEARNED, mostly_stale, past_explains
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import LESS_BATCH, STALE, added, changed, number, percent
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words
from tb_bnlens.metadata import REPLAY_MOMENTUMS

AT_MOST = "those of random samples can"
ORDER = "The data are sorted, change over time or come from domains in turn, or each batch is one group by design."
OVERALL = "variance of the batch means, over the most that random samples give"
APART = """\
# Where a batch is one group by design (the candidates of a query, a graph), its rows stay together. Batch statistics
# take out what they share, and fixed ones do not: take it out of the inputs, as by subtracting the group's mean.
# Domains that have to stay apart need a BatchNorm layer each. Where data change over time, as in a replay buffer,
# recalibrate on recent ones before the model is used.
"""
AT_THE_END = "import tb_bnlens; tb_bnlens.recalibrate(model, data, batches=200)"
COMPANY = "The loss compares the rows of a batch, so a sampler that sets their company may be meant."
MORE_KINDS = """\
# Shuffling would change the loss itself. Where inference suffers, put more kinds and fewer rows of each into a batch,
# or recalibrate on batches of random rows before the model is used.
"""
NEXT = "The batch means vary no more than random samples can, and inference loss nears that with batch statistics."

NEXT_TARGETS = "A row's company then says nothing of its target, and inference loss nears that with batch statistics."


def failed(f: Facts, d: Decision) -> Said:
    """How much the batches vary, and over what stretch."""
    return _by_evidence(f, d) if f.composition is not None else _by_probes(f, d)


def _by_evidence(f: Facts, d: Decision) -> Said:
    """From the measurement on many batches."""
    c, m = f.composition, f.measured
    assert c is not None and m is not None
    if not c.differ:
        return _since_then(f)
    said = []
    evidence = {}
    if m.unlike.any():
        times = robust.largest(m.row("between_within"))
        said.append(f"Batches differ from each other: their means vary {number(times)} times as much as {AT_MOST}.")
        evidence["overall"] = Evidence(OVERALL, times, m.spread_limit)
    if c.unlike_variances.any():
        high, of_mixed = (
            robust.largest(m.row(name)[c.unlike_variances]) for name in ("dominance_max", "dominance_mixed")
        )
        said.append(
            f"A minority of the batches has far higher variances: their mean is {number(high)} times their median, and "
            f"{number(of_mixed)} times in new batches of the same rows."
        )
        evidence["variances"] = Evidence("mean of the batches' variances over their median", high, c.dominance_limit)
    if c.losses_unlike:
        said.append(
            f"The batches' losses vary {number(c.losses_over_random)} times as much as if the same rows were shuffled."
        )
        evidence["losses"] = Evidence(
            "variance of the batches' losses, over that of shuffled rows", c.losses_over_random
        )
    if c.served_apart:
        apart = c.fixed_over_random
        said.append(
            f"Inference serves some batches and not others: its losses vary {number(apart)} times as much as if the "
            "same rows were shuffled, and batch statistics adapt to each batch."
        )
        evidence["fixed"] = Evidence("variance of the batches' inference losses, over that of shuffled rows", apart)
    if c.of_one_kind:
        swapped, strange = number(m.mean("swapped")), number(m.mean("mismatched"))
        said.append(
            f"The rows of a batch have much the same target: the loss is {_own(f)} with their own targets, {swapped} "
            f"with those of other rows of the batch and {strange} with those of other batches. So batch statistics "
            "tell the target, and inference has to do without."
        )
        evidence["swapped"] = Evidence(
            "loss with the targets of other rows of the batch",
            m.mean("swapped"),
            m.mean("mismatched"),
            against="of other batches",
        )
    said.append(COMPANY if c.compares_rows else ORDER)
    in_turn = c.last_is_served_best
    if in_turn:
        last, earlier = c.on_last.value, c.on_earlier.value
        said.append(
            f"The moving statistics know the last fit's data: inference loss is {number(last)} over the loss with "
            f"batch statistics there, and {number(earlier)} over it on the data of earlier fits."
        )
        evidence["earlier"] = Evidence(
            f"{LESS_BATCH} on data of earlier fits", earlier, last, against="of the last fit"
        )
    elif f.gap.significant and d.severity > Severity.INFO:
        said.append("The moving statistics are a mean that fits none of the batches.")
    if c.hampered.significant:
        mixed = number(f.typical("recombined"))
        said.append(f"Training suffers: on the same rows mixed, batch statistics give {mixed} instead of {_own(f)}.")
    left = c.left(m.trained)
    if left > LITTLE_LEARNED:
        said.append(_little_learned(f, left))
    if c.uneven.at_least(WARNING_HARM):
        said.append("The network serves some batches far worse than others.")
    if not f.gap.at_least(WARNING_HARM) and c.in_some.at_least(WARNING_HARM):
        inference, own = number(m.mean("inference")), number(m.mean(m.rival))
        said.append(
            f"Inference serves some batches badly: {c.carriers} of {m.batches} hold half of the difference between "
            f"{inference} and {own}."
        )
    if d.severity is Severity.INFO:
        said.append(
            f"The loss hardly suffers on the {m.batches} batches that were measured; a kind that fewer than "
            f"{percent(c.rarest_met)} of all batches hold may be missing there."
        )
    serves = f.stale.significant and mostly_stale(f)
    return Said(
        " ".join(said),
        evidence=evidence,
        rescue="# `data` has all kinds of rows in it:\n" + code.RECALIBRATE if serves else "",
        rescued="recalibrated",
        fix=_fix(f),
        next=NEXT_TARGETS if c.of_one_kind else NEXT,
    )


def _since_then(f: Facts) -> Said:
    """For data that have changed: the measured batches, all since then, do not differ from each other."""
    c, past = f.composition, f.evidence.earlier if f.evidence is not None else {}
    assert c is not None
    lags, forgotten = past_explains(f), c.on_past.at_least(NOTE_HARM)
    said = [changed(f)]
    evidence = {}
    if lags:
        left, recalibrated = f.left_of_past, number(f.typical("recalibrated"))
        said.append(
            f"Of the moving statistics, {percent(left)} is from before. With statistics of the batches since, "
            f"inference loss is {recalibrated} instead of {number(f.typical('inference'))}."
        )
        evidence["left"] = Evidence("share of the statistics from before the change (median layer)", left)
        evidence["stale"] = added(f, STALE, f.stale)
    if forgotten:
        inference, own = (number(past[name].mean) for name in ("inference", "batch"))
        said.append(f"On batches from before, inference loss is {inference} and {own} with batch statistics.")
        evidence["past"] = Evidence(
            f"{LESS_BATCH} on earlier batches", c.on_past.value, f.gap.value, against="on those since"
        )
    return Said(
        " ".join(said),
        evidence=evidence,
        rescue="# `data` is like the present data:\n" + code.RECALIBRATE if lags else "",
        rescued="recalibrated",
        fix="\n".join([_follow(f)] * lags + [_both(f)] * forgotten),
        next="Inference loss nears that with batch statistics on the data that the model is for.",
    )


def _follow(f: Facts) -> str:
    """The largest common momentum that forgets the data before the change, and a recalibration otherwise."""
    assert f.composition is not None
    forgets = f.layers.tolerance ** (1.0 / f.composition.steps_since)
    slower = [m for m in REPLAY_MOMENTUMS if m <= forgets and m < f.lowest_momentum]
    lower = (
        "" if not slower else "# A momentum that forgets the data from before:\n" + code.set_momentum(f, max(slower))
    )
    return f"{lower}\n# At the end of training, on data like the present ones:\n# {AT_THE_END}\n"


def _both(f: Facts) -> str:
    return (
        "# Only if the model is also for data like those from before. Mix both kinds:\n"
        f"{code.shuffle(f, f.batches.size)}# or give each kind its own BatchNorm layer.\n"
    )


def _little_learned(f: Facts, left: float) -> str:
    """What the loss is held against: the loss at the start, or the one with the targets of other rows of a batch."""
    mixed_up = f.typical("mismatched")
    if f.composition is None or not mixed_up < f.composition.start:
        return f"Training has learned little from them: {percent(left)} of the loss at the start is left."
    return (
        f"Training has learned little that tells the rows of a batch apart: with the targets of other rows the loss is "
        f"{number(mixed_up)}, with their own {_own(f)}."
    )


def _own(f: Facts) -> str:
    return number(f.measured.mean(f.measured.trained)) if f.measured else "?"


def _fix(f: Facts) -> str:
    if f.composition is not None and f.composition.compares_rows:
        return MORE_KINDS
    return code.shuffle(f, f.batches.size) + APART


def _by_probes(f: Facts, d: Decision) -> Said:
    """Without such a measurement."""
    times = f.spread_over_random
    summary = (
        f"The batch means vary {number(times)} times as much as {AT_MOST}. {ORDER} The moving statistics are a "
        "mean that fits none of the batches."
    )
    if d.severity is Severity.INFO and f.evaluated:
        summary += " The paired losses do not show it."
    return Said(
        summary,
        evidence={
            "overall": Evidence(OVERALL, times, f.batches.limit),
        },
        fix=_fix(f),
        next=NEXT,
    )


def passed(f: Facts, _d: Decision) -> str:
    """How much the batch means vary."""
    c, m = f.composition, f.measured
    if c is None or m is None:
        times, limit = f.spread_over_random, f.batches.limit
        return f"The batch means vary {number(times)} times as much as {AT_MOST} (limit {number(limit)})."
    times, limit = robust.largest(m.row("between_within")), m.spread_limit
    losses = "" if math.isnan(c.losses_over_random) else f", and the losses {number(c.losses_over_random)} times"
    return f"The batch means vary {number(times)} times as much as {AT_MOST} (limit {number(limit)}){losses}."


def _unknown(f: Facts) -> str:
    if f.measured is None:
        return "This takes a probe that runs several batches with the same weights."
    return f"The losses of {f.measured.batches} batches are too few to tell sorted batches from shuffled ones."


WORDS = Words(
    name="batches that differ",
    title="Batches are drawn from one distribution",
    failure_title="Batches are not drawn from one distribution",
    description="For random samples the variance of the batch means is at most the variance within a batch divided by "
    "the batch size. Batches that are sorted by class or alternate between domains vary far more, and their mean fits "
    "none of them.",
    absent="No layer's moving statistics are being updated, or a batch is one sample.",
    unknown=_unknown,
    passed=passed,
    failed=failed,
)
