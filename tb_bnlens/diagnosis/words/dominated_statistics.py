"""A few rows, many times larger than the others, that set the statistics."""

from __future__ import annotations

import math

import numpy as np

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.loss_gap import NOTE_HARM, WARNING_HARM
from tb_bnlens.diagnosis.compositions import composition, set_by_few
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.severity import Severity, of_gap
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import WARNING_FROM, loss, number, part_of, percent
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words

ORDINARY = """\
import numpy as np
import tensorflow as tf

# Columns far outside of where most rows lie, from the quartiles; `data` is the tf.data pipeline of batches:
seen = np.concatenate([np.asarray(batch[0]) for batch in data.take(200)])
low, middle, high = np.quantile(seen, [0.25, 0.5, 0.75], axis=0)
reach = 5 * np.maximum(high - low, np.mean(high - low))
"""
ORDINARY_IN_TORCH = """\
import numpy as np
import torch

# Columns far outside of where most rows lie, from the quartiles; `data` is the DataLoader:
seen = np.concatenate([np.asarray(batch[0]) for _, batch in zip(range(200), data)])
low, middle, high = (torch.tensor(q) for q in np.quantile(seen, [0.25, 0.5, 0.75], axis=0).astype("float32"))
reach = 5 * torch.maximum(high - low, (high - low).mean())
"""
RECALIBRATE_IN_TORCH = f"""

def ordinary_rows(x, *rest):
    kept = ((x - middle).abs() <= reach).flatten(1).all(1)
    return tuple(part[kept] for part in (x, *rest))


import tb_bnlens

ordinary = [ordinary_rows(*batch) for batch in data]
{code.UNDO}tb_bnlens.recalibrate(model, ordinary, batches=200)
"""
ORDINARY_IN_FLAX = """\
import numpy as np

# Columns far outside of where most rows lie, from the quartiles; `data` is the batches:
seen = np.concatenate([np.asarray(batch[0]) for _, batch in zip(range(200), data)])
low, middle, high = np.quantile(seen, [0.25, 0.5, 0.75], axis=0).astype("float32")
reach = 5 * np.maximum(high - low, np.mean(high - low))
"""
RECALIBRATE_IN_FLAX = RECALIBRATE_IN_TORCH.replace(
    "((x - middle).abs() <= reach).flatten(1).all(1)", "(np.abs(x - middle) <= reach).reshape(len(x), -1).all(1)"
)
CLIP_IN_FLAX = """\
# Find those rows and correct or drop them, or clip them, both in training and at inference:
#   x = np.clip(x, middle - reach, middle + reach)
"""
CLIP = """\
# Find those rows and correct or drop them, or clip them, both in training and at inference:
data = data.map(lambda x, *rest: (tf.clip_by_value(x, middle - reach, middle + reach), *rest))
"""
CLIP_IN_TORCH = """\
# Find those rows and correct or drop them, or clip them, both in training and at inference:
#   x = x.clamp(middle - reach, middle + reach)
"""


def _rows(f: Facts, name: str) -> float:
    return f.evidence.samples.get(name, {}).get("median", float("nan")) if f.evidence else float("nan")


def failed(f: Facts, d: Decision) -> Said:
    """How unequal the batches' variances are, and what an ordinary row loses."""
    if set_by_few(f):
        return _not_measured(f, d)
    times = robust.largest(f.evidence.layers["dominance_max"]) if f.evidence else float("nan")
    c = composition(f)
    typical, share = of_gap(c.ordinary) > Severity.INFO, c.extreme_share
    name = c.without_few if typical else "ordinary"
    ordinary = _rows(f, name) if typical else f.typical(name)
    found = (
        f"{100 * share:.2g}% of the rows have extreme inputs. The moving statistics are a mean over all rows and fit "
        "no ordinary one"
        if name == "ordinary"
        else f"the mean of the batches' variances is {number(times)} times their median. The moving statistics are "
        "that mean and fit no ordinary batch"
    )
    of_ordinary = f"with the statistics of ordinary {'rows' if name == 'ordinary' else 'batches'}, {number(ordinary)}"
    # What inference loses may lie in fewer than half of the rows, and the median row shows none of it.
    suffers = (
        f"The inference loss of an ordinary row is {number(_rows(f, 'inference'))}; {of_ordinary} (medians)."
        if typical
        else f"Inference loss is {number(f.typical('inference'))}; {of_ordinary} (means)."
    )
    part = c.ordinary if typical else c.on_average
    return Said(
        f"A few rows dominate the statistics: {found}. {suffers}{_no_rescue(f)}",
        evidence={
            "part": Evidence(
                "loss added to an ordinary row" if typical else "loss added to a row (mean)",
                part.value,
                part.value * WARNING_HARM / part.harm,
                against=WARNING_FROM,
            ),
            "dominance": Evidence("mean of the batches' variances over their median", times, c.dominance_limit),
            "extreme": Evidence("share of rows with extreme inputs", share),
            "recalibrated": Evidence(
                f"inference loss{' of an ordinary row' if typical else ''} with recalibrated statistics",
                _rows(f, "recalibrated") if typical else f.typical("recalibrated"),
            ),
        },
        rescue=_rescue(f) if math.isfinite(c.left_out) else "",
        rescued="ordinary",
        fix=_fix(f),
        next="The mean of the batches' variances is then near their median.",
    )


def _not_measured(f: Facts, d: Decision) -> Said:
    """Batches that are not among the measured ones, seen in the course of the statistics alone."""
    error = robust.largest(f.layers.error[list(d.layers)])
    inference, rescued = (loss(f, f.typical(kind)) for kind in ("inference", "recalibrated"))
    some = part_of(len(d.layers), len(f.layers.names))
    return Said(
        f"A few batches that are unlike all others set the moving statistics of {some}. These fit the latest batches "
        "at some records, and the measured ones not at all. One extreme row in a batch does that. Inference loss is "
        f"{inference}; with statistics of the measured batches, {rescued}.",
        evidence={
            "error": Evidence(
                "relative error of the statistics (p95, farthest of these layers)", error, f.layers.tolerance
            ),
            "least": Evidence("the least one in the second half of the record", _least(f, d)),
            "recalibrated": Evidence(
                "inference loss with statistics of the measured batches", f.typical("recalibrated")
            ),
        },
        # The measured statistics are of all rows; those of the printed code are the same if it leaves no row out.
        rescue=_rescue(f) if composition(f).extreme_share == 0.0 else "",
        rescued="recalibrated",
        fix=_fix(f),
        next="The moving statistics then stay near those of the batches.",
    )


def _least(f: Facts, d: Decision) -> float:
    half = len(f.history.steps) // 2
    return float(np.nanmin(f.history.row("error_p95")[half:, list(d.layers)]))


def _fix(f: Facts) -> str:
    return code.told(
        f,
        keras=ORDINARY + CLIP,
        torch=ORDINARY_IN_TORCH + CLIP_IN_TORCH,
        flax=ORDINARY_IN_FLAX + CLIP_IN_FLAX,
    )


def _no_rescue(f: Facts) -> str:
    """Statistics without some rows may serve the others, and be far worse for these."""
    if f.undone("ordinary").at_least(NOTE_HARM):
        return ""
    if not math.isfinite(f.typical("ordinary")):
        share = composition(f).extreme_share
        return f" With {percent(share)} of the rows extreme, none can be left out." if share > 0.0 else ""
    return (
        f" The mean over all rows is {loss(f, f.typical('ordinary'))} with statistics without the extreme ones, and "
        f"{loss(f, f.typical('inference'))} with the present ones, so that is no rescue."
    )


def _rescue(f: Facts) -> str:
    return code.told(
        f,
        keras=ORDINARY + "\n\ndef ordinary_rows(x, *rest):\n"
        "    kept = tf.reduce_all(tf.abs(x - middle) <= reach, axis=list(range(1, len(x.shape))))\n"
        "    return tuple(tf.boolean_mask(part, kept) for part in (x, *rest))\n\n\n"
        "import tb_bnlens\n\n"
        f"{code.UNDO}tb_bnlens.recalibrate(model, data.map(ordinary_rows), batches=200)\n",
        torch=ORDINARY_IN_TORCH + RECALIBRATE_IN_TORCH,
        flax=ORDINARY_IN_FLAX + RECALIBRATE_IN_FLAX,
    )


def passed(f: Facts, d: Decision) -> str:
    """How unequal they are."""
    times = number(robust.largest(f.evidence.layers.get("dominance_max", []))) if f.evidence else "?"
    if d.where is not None:
        return f"The mean of the batches' variances is {times} times their median, and ordinary rows do not suffer."
    limit = composition(f).dominance_limit
    if math.isinf(limit):
        return "No row has extreme inputs; batches of so few rows tell no more than that."
    return f"The mean of the batches' variances is at most {times} times their median (limit {number(limit)})."


WORDS = Words(
    name="a few dominating rows",
    title="No few rows dominate the statistics",
    failure_title="A few extreme rows dominate the statistics",
    description="A row that is many times larger than the others multiplies the variance of its batch. The moving "
    "variance averages over all batches, so that a few such rows set it, and every ordinary batch is scaled down at "
    "inference.",
    absent="No layer's moving statistics are being updated.",
    unknown=lambda _: "This takes the losses of single rows on many batches.",
    passed=passed,
    failed=failed,
)
