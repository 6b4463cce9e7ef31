"""The last batch of each epoch is so short that its statistics disturb the moving ones."""

from __future__ import annotations

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.at_the_end import LAST_BATCH_SHARE, OUTLIER
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import STANDARD, WARNING_FROM, count, number
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def _in_keras(size: int) -> str:
    return (
        "# Leave out the rows that fill no batch. Arrays, which are best shuffled once before:\n"
        f"#   rows = len(x) // {size} * {size}\n"
        f"#   model.fit(x[:rows], y[:rows], batch_size={size})\n"
        f"# A tf.data pipeline, where it is made: .batch({size}, drop_remainder=True). Of one that is made:\n"
        "data = data.take(data.cardinality() - 1)\n"
    )


def failed(f: Facts, d: Decision) -> Said:
    """How far off the short batch is, and what it does to the loss."""
    last, usual, moved = f.last_batch[list(d.layers)], f.usual_batch[list(d.layers)], f.loss_after_last_batch
    left = robust.largest(f.last_batch_left)
    summary = (
        f"The short last batch of an epoch is {number(robust.largest(last / usual))} times as far from the moving "
        f"statistics as usual batches. It moves the statistics of {count(len(d.layers))} by up to {number(left)} "
        "standard deviations."
    )
    if d.severity > Severity.INFO and moved > 0:
        summary += f" Inference loss is {number(moved)} higher right after it."
    return Said(
        summary,
        evidence={
            "distance": Evidence(
                "distance of the last batch", robust.largest(last), OUTLIER * robust.largest(usual), STANDARD
            ),
            "left": Evidence("by how much it moves the moving statistics", left, LAST_BATCH_SHARE, STANDARD),
            "moved": Evidence("inference loss right after it - usual", moved, f.warning_loss, against=WARNING_FROM),
        },
        rescue=code.rescue(f, d.severity),
        rescued="recalibrated",
        # Batching again would leave Keras without the number of batches, which it warns of at each epoch.
        fix=_in_keras(f.manifest.batch_size or 32) if f.in_keras else code.shuffle(f, f.manifest.batch_size),
        next="No epoch ends in a short batch, and inference loss does not jump at the end of an epoch.",
    )


WORDS = Words(
    name="a short last batch",
    title="The last batch of an epoch is no outlier",
    failure_title="A short last batch disturbs the moving statistics",
    description="Where the number of samples is no multiple of the batch size, each epoch ends in a short batch. A "
    "batch of one or two samples has almost no variance, enters the moving statistics with weight 1 - momentum, and "
    "does so right before validation.",
    absent="No epoch ended in a short batch.",
    passed=lambda f, _: (
        f"The short last batch moves the statistics by at most {number(robust.largest(f.last_batch_left))} standard "
        "deviations."
    ),
    failed=failed,
)
