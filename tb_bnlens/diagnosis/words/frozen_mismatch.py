"""Frozen layers whose statistics come from other data: harmful or harmless, by the losses."""

from __future__ import annotations

import math

import numpy as np

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.lag import LARGE_DISTANCE
from tb_bnlens.diagnosis import conditions as on
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.diagnosis.words import code, constant
from tb_bnlens.diagnosis.words.phrases import STANDARD, count, loss, number, some_of, verb
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words

IN_EVAL_MODE = (
    "A layer in eval mode whose weights are not trained normalizes with the statistics of the data it was trained on. "
    "Where those differ from this run's batches the network may still have learned with them; the losses tell."
)


def _largest(f: Facts) -> float:
    return robust.largest(f.layers.distance[f.frozen])


def passed(f: Facts, _d: Decision) -> str:
    """How far the frozen statistics are off, and what they cost."""
    frozen, cost = count(int(f.frozen.sum()), "frozen layer"), f.constant_part
    part = f", and correct ones change inference loss by {number(-cost.value)}" if math.isfinite(cost.value) else ""
    return f"The statistics of {frozen} are at most {number(_largest(f))} standard deviations off{part}."


def failed(f: Facts, d: Decision) -> Said:
    """How far they are off, and which losses show it."""
    frozen, n, harmful = int(f.frozen.sum()), len(d.layers), d.severity > Severity.INFO
    shown = harmful and constant.shows(f, d)
    spoilt = f.measured is not None and f.measured.spoils("recalibrated_all")
    new = [i for i in d.layers if f.initial[i]]
    what = "statistics of other data"
    if len(new) == n:
        what = "a mean of exactly 0 and a variance of exactly 1: they were never loaded or trained"
    return Said(
        f"{some_of(n, frozen, 'frozen layer')} {verb(n, 'use')} {what} (distance up to "
        f"{number(_largest(f))} batch standard deviations).{_felt(f, harmful, shown)}{_hint(f, d, harmful)}"
        + (code.spoilt(f, "recalibrated_all") if shown and spoilt else ""),
        evidence={
            "distance": Evidence("largest distance of a frozen layer", _largest(f), LARGE_DISTANCE, STANDARD),
            "part": constant.cost(f, d, "loss added by frozen statistics"),
        },
        rescue=code.RECALIBRATE_FROZEN if shown and f.parts is not None and not spoilt else "",
        rescued="recalibrated_all",
        fix=(code.load_statistics(f) if len(new) == n else "") + (_fix(f, d) if harmful else ""),
        next=_expected(shown) if harmful else "",
    )


def _expected(shown: bool) -> str:
    now = "Inference loss near the loss with batch statistics. If it is not" if shown else "Training loss falls. If not"
    return f"{now}, check that inputs are preprocessed as for the original training."


def _hint(f: Facts, d: Decision, harmful: bool) -> str:
    """What the losses cannot show: the base may still be used below its worth."""
    meant = harmful or not on.far(f, np.isin(np.arange(len(f.frozen)), d.layers))
    return "" if meant else " If the data are not meant to differ that much, check their preprocessing."


def _felt(f: Facts, harmful: bool, shown: bool) -> str:
    if not f.evaluated:
        return ""
    if not harmful:
        return constant.unfelt(f)
    if not shown:
        return constant.in_vain(f)
    training, inference, batch = (loss(f, f.typical(k)) for k in ("training", "inference", "batch"))
    if f.training_escapes:
        return (
            f" Training loss is {training}, because these layers then normalize with the batch; inference loss is "
            f"{inference}."
        )
    return f" Training loss {training} and inference loss {inference} both suffer: with batch statistics it is {batch}."


def _fix(f: Facts, d: Decision) -> str:
    statement = "layer.trainable = True" if f.in_keras else "layer.train()"
    unfreeze = code.at_layers(f, [f.manifest.layers[i].access for i in d.layers][:3], statement)
    return (
        "# First check that inputs are preprocessed as the base expects. Then either take statistics of this data, "
        "before training:\n"
        "import tb_bnlens\n\n"
        "tb_bnlens.recalibrate(model, data, batches=200, frozen=True)\n\n"
        f"# or let training update them{' (then compile again)' if f.in_keras else ''}:\n# "
        + unfreeze.rstrip().replace("\n", "\n# ")
        + "\n"
    )


WORDS = Words(
    name="frozen layers on other data",
    title="Frozen statistics do no harm here",
    failure_title="Frozen moving statistics do not fit the data",
    description="A frozen layer (trainable=False) normalizes with the statistics of the data it was trained on. Where "
    "those differ from this run's batches the network may still have learned with them; the losses tell.",
    in_torch={"description": IN_EVAL_MODE},
    in_flax={"description": IN_EVAL_MODE},
    absent="No layer is frozen.",
    unknown=lambda _: "The batch statistics of frozen layers are not measured in this run.",
    passed=passed,
    failed=failed,
)
