"""Batches that the network has memorized, for instance because every epoch has the same ones."""

from __future__ import annotations

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.compositions import composition
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import number
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def _losses(f: Facts) -> str:
    own = number(f.measured.mean(f.measured.trained)) if f.measured else "?"
    return f"With batch statistics the loss is {own} on the batches of training and {_mixed(f)} on the same rows mixed"


def _mixed(f: Facts) -> str:
    return number(f.typical("recombined"))


def failed(f: Facts, _d: Decision) -> Said:
    """The loss on the batches of training, on the same rows mixed, and at inference."""
    return Said(
        f"{_losses(f)}: the network has memorized which rows share a batch. Inference "
        f"({number(f.typical('inference'))}) does no worse than on new batches, so its statistics are in order.",
        evidence={
            "mixed": Evidence("loss on the same rows in new batches", f.typical("recombined")),
            "by_heart": Evidence("loss in new batches - in those of training", composition(f).by_heart.value),
            "inference": Evidence("inference loss", f.typical("inference")),
        },
        fix="# Nothing, if each epoch has other batches: after many epochs the last ones are memorized as well.\n"
        "# With TensorFlow, fit(x, y) after keras.utils.set_random_seed has the same batches in every epoch, although\n"
        "# shuffle=True: pass a tf.data pipeline there. To put its rows together in another way in each epoch:\n"
        f"data = data.rebatch(1).shuffle(10_000, reshuffle_each_iteration=True).rebatch({f.batches.size or 32})\n"
        if f.in_keras
        else code.shuffle(f, f.batches.size),
        next="The loss with batch statistics then agrees with inference.",
    )


WORDS = Words(
    name="memorized batches",
    title="The network has not memorized its batches",
    failure_title="The network has memorized its batches",
    description="Where the same rows share a batch in every epoch, a network can learn their batch statistics along "
    "with them. Its loss on these very batches is then no fair comparison for inference; new batches of the same rows "
    "are.",
    absent="The run was not measured on many batches.",
    unknown=lambda _: "This takes a pass on new batches of the same rows.",
    passed=lambda f, _: f"{_losses(f)}.",
    failed=failed,
)
