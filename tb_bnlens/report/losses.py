"""The report's losses: means over many batches where those were measured, else the last probe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.loss_gap import Losses
from tb_bnlens.analysis.measured import Measured
from tb_bnlens.diagnosis.severity import Severity, of_gap
from tb_bnlens.diagnosis.words.phrases import rival
from tb_bnlens.metadata import LAYER_INDEX, LOSS_KINDS, State
from tb_bnlens.report import schema
from tb_bnlens.report.numbers import number

IN_EVERY_LAYER = "the loss with batch statistics in every layer"
RENEWED = "the loss with recalibrated statistics"
OF_THE_PAST = (
    "The statistics of the last batches are those of past weights, and serve worse than the moving ones. A measurement "
    "on many batches takes them at the present weights."
)
"""Why a probe has no recalibrated loss, nor the parts that it tells."""
KEPT = (State.FROZEN, State.INFERENCE_MODE)
"""States of layers that ``recalibrate`` leaves alone by default."""


def reported_losses(facts: Facts, severity: Severity) -> schema.Losses:
    """The losses on training batches and, where there are any, on validation data.

    Args:
        facts: of the run.
        severity: of the run, which the reported harm explains.
    """
    kept = bool(len(facts.layers.names)) and bool(facts.layers.is_state(*KEPT).all())
    out = _block(facts.losses, facts.measured, kept)
    out |= _harm(facts, severity)
    if facts.measured is not None:
        out["share_undone"] = number(facts.share_undone)
        out["as_at_step"] = facts.as_at_step
    if facts.validation.step is not None:
        out["validation"] = _block(facts.validation, facts.measured_validation, kept)
    return cast(schema.Losses, out)


def _block(losses: Losses, measured: Measured | None, kept: bool) -> dict[str, Any]:
    """One set of losses; ``kept``: training leaves the statistics of all layers as they are."""
    now: dict[str, float] = {kind: losses.now.get(kind, math.nan) for kind in LOSS_KINDS}
    fresh = losses.now.get("recalibrated_now", math.nan)
    not_evaluated = {what: why for what, why in losses.not_evaluated.items() if what not in LAYER_INDEX}
    step, replayed = losses.step, losses.replayed
    if measured is not None and measured.has("inference", "batch"):
        # One figure, one meaning: what a probe measured of one batch is no part of the same table.
        now = {kind: measured.mean(kind) for kind in LOSS_KINDS}
        fresh = math.nan
        step, replayed = measured.evidence.step, measured.replayed or replayed
    elif math.isnan(fresh) and not losses.windows_serve:
        now["recalibrated"] = math.nan
        not_evaluated["recalibrated"] = OF_THE_PAST
    out: dict[str, Any] = {"step": step, **{kind: number(value) for kind, value in now.items()}}
    out["batches"] = None if measured is None else measured.batches
    out["recalibrated_now"] = number(fresh)
    out |= _parts(now, fresh)
    if kept:
        # It would be inference once more, under a name that promises better statistics.
        out["recalibrated"] = out["recalibrated_now"] = None
    out["metrics"] = {} if measured is None else _metrics(measured)
    out["not_evaluated"] = not_evaluated
    # JSON has no infinity, and a loss that overflowed is not one that was not measured.
    out["overflowed"] = [kind for kind, value in now.items() if math.isinf(value)]
    out["forecast"] = _points("updates", ((int(n), loss) for n, loss in losses.forecast[1:]))
    out["replayed"] = _points("momentum", replayed.items())
    return out


def _harm(facts: Facts, severity: Severity) -> dict[str, Any]:
    """What severity goes by, and what inference is held against."""
    gap, held_against, measured = facts.gap, rival(facts), facts.measured
    loss = facts.rival_loss if facts.has_layers else facts.typical("training")
    if measured is None:
        loss = math.nan  # a median over the last probes; the report has the losses of the last one
    if severity > max(of_gap(gap), Severity.INFO) and measured is not None and measured.rival == "batch_as_trained":
        # Frozen layers that training uses as they are: what they cost shows against batch statistics everywhere.
        gap, held_against, loss = measured.gap("inference", "batch"), IN_EVERY_LAYER, measured.mean("batch")
    elif severity > max(of_gap(gap), Severity.INFO) and of_gap(facts.stale) > of_gap(gap):
        # Batch statistics of few rows are bad themselves; what inference could be is the better measure.
        gap, held_against = facts.stale, RENEWED
        loss = math.nan if measured is None else measured.mean("recalibrated")
    return {
        "harm": number(min(gap.harm, gap.seen)),
        "harm_is_sure": gap.significant,
        "rival": held_against,
        "rival_loss": number(loss),
    }


def _parts(now: Mapping[str, float], fresh: float) -> dict[str, float | None]:
    """What each mode adds to the loss."""
    # Windows of past weights hold drift as well as noise; statistics at the present weights part the two.
    reference = now["recalibrated"] if math.isnan(fresh) else fresh
    return {
        "dropout": number(now["training"] - now["batch"]),
        "stale": number(now["inference"] - reference),
        "noise": number(reference - now["batch"]),
    }


def _points(x: str, losses: Iterable[tuple[float, float]]) -> list[dict[str, float | None]]:
    return [{x: at, "loss": number(loss)} for at, loss in losses if math.isfinite(loss)]


def _metrics(measured: Measured) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {}
    for kind in LOSS_KINDS:
        for name, value in measured.passes[kind].metrics.items() if measured.has(kind) else ():
            found.setdefault(name, {})[kind] = number(value)
    return found
