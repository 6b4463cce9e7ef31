"""The run in a sentence or two: what the losses say, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.analysis.loss_gap import WARNING_HARM, Losses
from tb_bnlens.history import History
from tb_bnlens.numbers import number
from tb_bnlens.rules.diagnose import Diagnosis
from tb_bnlens.rules.judging import count, severity_of, worse
from tb_bnlens.rules.rule import Severity, Status


def verdict(
    history: History, losses: Losses, layers: LayerTable, diagnoses: Sequence[Diagnosis]
) -> tuple[str, list[str]]:
    """The top of the tab and of the report: what the losses say, in one sentence, and why, one entry a cause.

    Args:
        history: the run.
        losses: its paired losses on training batches.
        layers: its layers at the end.
        diagnoses: from ``diagnose``, in its order.
    """
    if not history.manifest.layers and history.problems:
        return history.problems[0], []
    failures = [d for d in diagnoses if d.severity is not Severity.NONE]
    if not history.manifest.layers:
        about = "" if failures else ", so there is nothing to look at"
        return f"The model has no BatchNorm layers{about}.", [_headline(d) for d in failures[:1]]
    if history.last_step is None:
        return "Nothing is recorded yet.", ["Records appear as soon as training has done its first steps."]
    if losses.diverged:
        return _losses(losses), [_headline(d) for d in failures[:1]]
    parts = []
    grave = [d for d in failures if d.severity in (Severity.ERROR, Severity.WARNING)]
    if grave:
        parts += [_headline(d) for d in grave[:2] if d.meta.id != "train-inference-gap"]
        if all(d.meta.id == "train-inference-gap" for d in grave):
            parts.append("No known cause fits the record; compare the recalibrated loss with the other two.")
    elif excusing := [d for d in failures if d.meta.excuses]:
        parts.append(_headline(excusing[0]))
    else:
        parts.append(_healthy(layers, losses))
        if failures:
            more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
            parts.append(f"Worth a note: {_headline(failures[0]).rstrip('.')}{more}.")
    broken = sum(d.finding.status is Status.ERROR for d in diagnoses)
    if broken:
        parts.append(f"{count(broken, 'rule')} failed to run.")
    return _losses(losses), parts


def _headline(d: Diagnosis) -> str:
    return d.finding.headline or d.finding.summary


def _losses(losses: Losses) -> str:
    gap = losses.gap("inference", "batch")
    if losses.diverged:
        return "The loss is not finite in training mode either: training has diverged."
    if not gap.known:
        return "The paired losses were not evaluated in this run." if losses.not_evaluated else "No loss is probed yet."
    inference, batch = losses.now.get("inference", math.nan), losses.now.get("batch", math.nan)
    where = f"on the same batch and weights (step {losses.step:,})"
    if not severity_of(losses.judge(np.array([inference - batch]))).rank <= severity_of(gap).rank:
        # The last probe alone is out of line with the window it is judged in.
        inference, batch = losses.typical["inference"], losses.typical["batch"]
        where = f"on the same batches and weights (median of the last probes, to step {losses.step:,})"
    if severity_of(gap) in (Severity.ERROR, Severity.WARNING):
        if not math.isfinite(inference):
            return f"Inference is not finite while batch mode stands at {number(batch)}, {where}."
        # Frozen layers take their own statistics into training, which is then no better than inference.
        felt = losses.gap("training", "batch").known and not losses.gap("inference", "training").at_least(WARNING_HARM)
        rival = "with the batch's own statistics" if felt else "training mode"
        return f"Inference is {worse(inference, batch, losses.natural_zero)} than {rival}, {where}."
    return f"Inference stands at {number(inference)} and batch mode at {number(batch)}, {where}."


def _healthy(layers: LayerTable, losses: Losses) -> str:
    known = layers.distance[~np.isnan(layers.distance)]
    if not len(known):
        return losses.not_evaluated.get("distance_rms", "The layers' statistics are not measured yet.")
    distance = (
        f"their outputs differ by {number(float(np.median(known)))} batch standard deviations in the median layer"
    )
    if not losses.evaluated:
        return f"Nothing stands out in {count(len(layers.names), 'BatchNorm layer')}: {distance}."
    return f"Healthy: {count(len(layers.names), 'BatchNorm layer')} serve inference as well as training; {distance}."
