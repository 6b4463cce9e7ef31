"""The moving statistics are updated by other data than the batch that the lens sees."""

from __future__ import annotations

import math

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.parts import EXPLAINED
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import loss, number, some_of, verb
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words

APART = """\
# If the layer is called on two kinds of data in a step, apart from each other (real and generated samples, source and
# target, clean and adversarial inputs), give each kind its statistics, or normalize both together in one call:
#   out = model(keras.ops.concatenate([real, generated]), training=True)
"""
APART_IN_TORCH = APART.replace(
    "keras.ops.concatenate([real, generated]), training=True", "torch.cat([real, generated])"
)
APART_IN_FLAX = APART.replace(
    "keras.ops.concatenate([real, generated]), training=True", "jnp.concatenate([real, generated])"
)
ASIDE_IN_TORCH = """\
# If those calls train nothing (an agent that acts, samples for a picture), make them in eval mode:
#   model.eval()
#   ...
#   model.train()
"""
ONLY = "# Right for data like the recorded batches, and only for those:\n"
ALONE = """\
# If the model will predict data like the recorded batches and no others, take the statistics of those at the end.
# Predictions for the other data may get worse:
# import tb_bnlens; tb_bnlens.recalibrate(model, data, batches=200)
"""
CHANGED = """\
# If the training step changes its input (mixup, noise, augmentation), the statistics are those of changed inputs. Take
# them of inputs as they are at use, at the end of training:
"""


def passed(f: Facts, _d: Decision) -> str:
    """How well the batch explains the updates."""
    assert f.parts is not None, "decided without a measurement"
    explained = robust.median(f.row("update_explained"))
    if f.parts.fed_otherwise.any():
        return "The training step feeds the layers other data than the batch as well, and the loss does not suffer."
    if math.isnan(explained):
        updates = number(robust.median(f.parts.updates_a_step))
        return f"The statistics decay as with {updates} times the updates that the lens sees."
    return f"The batch explains the updates (squared cosine {number(explained)} in the median layer)."


def failed(f: Facts, d: Decision) -> Said:
    """How many updates a step makes, and what the batch alone would give."""
    assert f.parts is not None, "decided without a measurement"
    where, n, rescued = list(d.layers), len(d.layers), f.typical("recalibrated")
    more = f.parts.more_updates[where]
    several = bool(more.any())
    times = robust.median(f.parts.updates_a_step[where][more if several else slice(None)])
    told = (
        f"{_updates(f)} {round(times)} updates a step, and the lens sees one: training also calls the model on other "
        "data, or on parts of the recorded batch."
        if several
        else "The training step transforms its input, or calls the layer on other data as well."
    )
    return Said(
        f"{some_of(n, len(f.layers.names))} {verb(n, 'average')} data that differ from the recorded batches. {told} "
        f"The moving statistics are not those of the recorded batches. {_gives(f, d)}",
        evidence={
            "explained": Evidence(
                "share of the updates that the batch explains (squared cosine, lowest layer)",
                -robust.largest(-f.row("update_explained")[where]),
                EXPLAINED,
            ),
            "updates": Evidence(
                f"updates in a step{'' if f.in_torch else ', from the observed decay'} (median of those layers)",
                times if times >= 1.0 else math.nan,  # mixed data hide part of the decay
                1.0,
                against="seen",
            ),
            "recalibrated": Evidence("inference loss with statistics of the recorded batches", rescued),
        },
        # The loss on the other data is not known, and statistics of the recorded ones alone may ruin it.
        rescue=ONLY + code.RECALIBRATE if d.severity > Severity.INFO and not several else "",
        rescued="recalibrated",
        fix=_apart(f) if several else CHANGED + "# import tb_bnlens; tb_bnlens.recalibrate(model, data, batches=200)\n",
        next="The batch explains the updates, and inference loss is near the loss with batch statistics.",
    )


def _updates(f: Facts) -> str:
    return "The modules count" if f.in_torch else "The statistics decay as with"


def _gives(f: Facts, d: Decision) -> str:
    """What statistics of the recorded batches alone change."""
    if d.severity is Severity.INFO:
        return "The loss of the recorded batches does not suffer."
    rescued, inference = (loss(f, f.typical(kind)) for kind in ("recalibrated", "inference"))
    return f"With statistics of the recorded batches inference loss on them is {rescued} instead of {inference}."


def _apart(f: Facts) -> str:
    return code.told(f, keras=APART, torch=APART_IN_TORCH + ASIDE_IN_TORCH, flax=APART_IN_FLAX) + ALONE


WORDS = Words(
    name="updates by unseen data",
    title="The batches explain how the statistics move",
    failure_title="Statistics are a mixture with data that the lens does not see",
    description="The change of the moving statistics in a step is compared with the one that the recorded batch would "
    "make. They differ where the step transforms its input, or calls the layer a second time on other data; then "
    "neither waiting nor another momentum makes the statistics those of the batch.",
    absent="No layer's moving statistics are being updated.",
    unknown=lambda _: "This takes a measurement on many batches at the end of training.",
    passed=passed,
    failed=failed,
)
