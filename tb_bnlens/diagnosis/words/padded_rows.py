"""Rows of weight 0 that the loss leaves out and BatchNorm does not."""

from __future__ import annotations

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.compositions import composition
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import STANDARD, added, number
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def failed(f: Facts, _d: Decision) -> Said:
    """What statistics of the rows that count would give."""
    inference, counted, all_rows = (number(f.typical(kind)) for kind in ("inference", "counted", "recalibrated"))
    return Said(
        "Some rows have a sample weight of 0, as padding has. The loss does not count them, but BatchNorm does, and "
        f"they move the statistics: inference loss is {inference}. With the statistics of the rows that count it is "
        f"{counted}; with those of all rows, {all_rows}.",
        evidence={
            "part": added(f, "loss added by rows of weight 0", composition(f).uncounted),
            "distance": Evidence(
                "distance of the statistics of all rows from those of the rows that count",
                robust.largest(f.evidence.layers.get("counted_distance_rms", [])) if f.evidence else None,
                None,
                STANDARD,
            ),
        },
        rescue=f"{COUNTED}{code.UNDO}tb_bnlens.recalibrate(model, counted, batches=200)\n",
        rescued="counted",
        fix="# Fill the last batch with rows of the data instead of padding, or leave it out (drop_remainder=True).\n"
        "# `data` is the tf.data pipeline of (x, y, sample_weight):\n"
        f"data = data.unbatch().filter(lambda x, y, weight: weight > 0).batch({_size(f)}, drop_remainder=True)\n",
        next="The moving statistics agree with those of the rows that count.",
    )


def _size(f: Facts) -> int:
    return f.batches.size or 32


COUNTED = """\
import tb_bnlens

# Without the rows of weight 0; `data` is the tf.data pipeline of (x, y, sample_weight):
counted = data.unbatch().filter(lambda x, y, weight: weight > 0).batch(32)
"""


def passed(f: Facts, _d: Decision) -> str:
    """The same without harm."""
    counted, inference = number(f.typical("counted")), number(f.typical("inference"))
    return f"With the statistics of the rows that count, inference loss is {counted}, with all {inference}."


WORDS = Words(
    name="padded rows",
    title="Rows of weight 0 do not disturb the statistics",
    failure_title="Padded rows distort the statistics",
    description="A batch that is filled up to a fixed size holds rows that do not count. Their sample weight of 0 "
    "takes them out of the loss and not out of BatchNorm, whose statistics they pull towards the padding.",
    absent="No row of the measured batches has a sample weight of 0.",
    unknown=lambda _: "This takes a pass with the statistics of the rows that count.",
    passed=passed,
    failed=failed,
)
