"""Trainable layers that are called in inference mode, so that training does not update them."""

from __future__ import annotations

import numpy as np

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.lag import LARGE_DISTANCE
from tb_bnlens.diagnosis.compositions import diverged_on_constant
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.diagnosis.words import code, constant
from tb_bnlens.diagnosis.words.phrases import STANDARD, against_batch, count, number, sentence, some_of, verb
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words

PASS_ON = """\
# In the call of your model pass its own argument on:  x = self.base(x, training=training)
# In a functional model leave training=False out:      x = base(inputs)
"""
TRAIN = "# Before the training step, and again after each evaluation:\nmodel.train()\n"
UNTIL_THEN = """\
# Until then, to use statistics that fit:
import tb_bnlens

tb_bnlens.recalibrate(model, data, batches=200, frozen=True)
"""


def _distance(f: Facts) -> float:
    return float(np.nanmax(f.layers.distance[f.called], initial=0.0))


def _although(f: Facts) -> str:
    # Which weights are trained is up to the optimizer in flax.
    return code.told(f, keras=" although trainable", torch=" although the weights are trained", flax="")


def failed(f: Facts, d: Decision) -> Said:
    """How many, since when, and whether the loss suffers."""
    n = len(d.layers)
    summary = (
        f"{some_of(n, len(f.layers.names))} {verb(n, 'run')} in {'inference' if f.in_keras else 'eval'} mode during "
        f"training{_although(f)}, so "
        f"{'its' if n == 1 else 'their'} statistics stay as they are (distance up to {number(_distance(f))} "
        f"{STANDARD})."
    )
    if f.unfreezing is not None:
        still = "the call still passes training=False" if f.in_keras else "the layers are still in eval mode"
        summary += f" They were unfrozen at step {f.unfreezing.step:,}, but {still}."
    shown = d.severity > Severity.INFO and constant.shows(f, d)
    if diverged_on_constant(f):
        summary += (
            f" Training has diverged since then: at step {f.first_not_finite or 0:,} its loss was not finite any more. "
            "With constant statistics nothing bounds the activations while the weights grow."
        )
    elif f.evaluated and d.severity is Severity.INFO:
        summary += f"{constant.unfelt(f)} This is fine if it is intended."
    elif f.evaluated:
        summary += f" {sentence(against_batch(f))}." if shown else constant.in_vain(f)
    spoilt = f.measured is not None and f.measured.spoils("recalibrated_all")
    if spoilt and shown:
        summary += code.spoilt(f, "recalibrated_all")
    return Said(
        summary,
        evidence={
            "distance": Evidence("largest distance of these layers", _distance(f), LARGE_DISTANCE, STANDARD),
            "part": constant.cost(f, d, "loss added by constant statistics"),
        },
        rescue=code.RECALIBRATE_FROZEN if shown and f.parts and not spoilt else "",
        rescued="recalibrated_all",
        fix=(PASS_ON if f.in_keras else TRAIN) + (UNTIL_THEN if shown or not f.evaluated else ""),
        next="The layers' moving statistics change at the next record.",
    )


WORDS = Words(
    name="layers called in inference mode",
    title="Layers in inference mode have statistics that fit",
    failure_title="Trainable BatchNorm is called in inference mode",
    description="A layer with trainable=True whose moving statistics stay constant: a subclassed call passes "
    "training=False to it or takes no training argument. A base called with training=False stays in inference mode "
    "after it is unfrozen.",
    in_torch={
        "name": "layers trained in eval mode",
        "title": "Layers in eval mode have statistics that fit",
        "failure_title": "BatchNorm is in eval mode during training",
        "description": "A layer whose weights are trained and whose running statistics stay constant: it was put in "
        "eval mode, or the model was after an evaluation, and model.train() was not called again.",
        "absent": "No layer is in eval mode while its weights are trained.",
    },
    in_flax={
        "name": "layers in eval mode during training",
        "title": "Layers in eval mode have statistics that fit",
        "failure_title": "BatchNorm is in eval mode during training",
        "description": "A layer whose running statistics stay constant while the model trains: it was put in eval "
        "mode, or the model was after an evaluation, and model.train() was not called again. For a frozen base that is "
        "intended; whether its weights are trained is known to the optimizer alone.",
        "absent": "No layer is in eval mode during training.",
    },
    absent="No trainable layer is called in inference mode.",
    passed=lambda f, _: (
        f"{count(int(f.called.sum()))} in inference mode; the statistics are {number(_distance(f))} standard "
        "deviations off."
    ),
    failed=failed,
)
