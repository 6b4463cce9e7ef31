"""Batches of few rows whose noisy statistics training itself suffers from."""

from __future__ import annotations

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.compositions import FEW_ROWS, composition, larger_batches_serve
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import STANDARD, number
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def _losses(f: Facts) -> str:
    own = number(f.measured.mean(f.measured.trained)) if f.measured else "?"
    larger = number(f.typical("pooled"))
    return f"With batch statistics the loss is {own}, on batches four times as large {larger}"


def failed(f: Facts, _d: Decision) -> Said:
    """The losses in training, on larger batches and at inference."""
    scatter = robust.largest(composition(f).batch_scatter)
    if not larger_batches_serve(f):
        return _of_pairs(f, scatter)
    size, rows = f.batches.size or 8, composition(f).rows
    few = f"The mean of a single batch scatters by {number(scatter)} standard deviations of a row."
    told = Evidence("scatter of a single batch's mean (noisiest layer)", scatter, FEW_ROWS, STANDARD)
    if scatter < FEW_ROWS:
        few = f"A batch has {number(rows)} rows, and the positions of one image are no independent samples."
        told = Evidence("rows of a batch", rows, FEW_ROWS**-2, against="few up to")
    return Said(
        f"Training suffers from its small batches: {_losses(f)[0].lower()}{_losses(f)[1:]}, and at inference "
        f"{number(f.typical('inference'))}. {few} Inference is not at fault; what the network learned from such "
        "batches may be.",
        evidence={
            "training": Evidence("batch statistics - inference", composition(f).of_training.value),
            "pooled": Evidence(
                "batch statistics - the same on batches four times as large", composition(f).pooled.value
            ),
            "scatter": told,
        },
        fix=code.larger_batches(f, max(4 * size, 16)),
        next="The loss with batch statistics comes down to that at inference, and both may fall further.",
    )


def _of_pairs(f: Facts, scatter: float) -> Said:
    """What normalizing does to two rows, where no loss tells what it costs: larger batches of the same network."""
    return Said(
        "Batches have two rows. Normalized, they are +1 and -1 in every channel of a layer that sees one value of each "
        "row: it passes on which of the two is larger, and not by how much. What training could learn otherwise is not "
        "measured.",
        evidence={
            "rows": Evidence("rows of a batch", composition(f).rows),
            "scatter": Evidence("scatter of a single batch's mean (noisiest layer)", scatter, FEW_ROWS, STANDARD),
        },
        fix=code.larger_batches(f, 16),
        next="Both losses may fall further.",
    )


WORDS = Words(
    name="noisy training",
    title="Training does not suffer from small batches",
    failure_title="Small batches disturb training",
    description="The statistics of a few rows are noisy. Where the loss with batch statistics is far above that of the "
    "same network at inference and on larger batches, the noise costs training more than it can learn from.",
    absent="No layer's moving statistics are being updated, or the run was not measured on many batches.",
    unknown=lambda _: "This takes a pass on larger batches.",
    passed=lambda f, _: f"{_losses(f)}.",
    failed=failed,
)
