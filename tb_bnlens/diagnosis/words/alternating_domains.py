"""One layer called several times a step on unlike data."""

from __future__ import annotations

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.conditions import CALL_NOISE_FACTOR
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.words.phrases import count, number, verb
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def failed(f: Facts, d: Decision) -> Said:
    """How far the calls' batches lie apart."""
    largest, n = robust.largest(f.layers.alternation), len(d.layers)
    return Said(
        f"{count(n)} {verb(n, 'see')} two kinds of data in each step: the batch statistics of their calls differ by up "
        f"to {number(largest)} standard deviations. Inference uses one mean for both, which fits neither.",
        evidence={"alternation": Evidence("distance between two calls", largest, CALL_NOISE_FACTOR * f.call_noise)},
        fix="import keras\n\n"
        "# One layer for each kind of data; the other weights stay shared:\n"
        "norm_a, norm_b = keras.layers.BatchNormalization(), keras.layers.BatchNormalization()\n",
        next="The moving statistics of each layer agree with its own batches.",
    )


def passed(f: Facts, d: Decision) -> str:
    """How far the calls lie apart, against batch noise."""
    largest = number(robust.largest(f.layers.alternation))
    if d.where is not None:
        return f"The calls of shared layers differ by up to {largest} standard deviations; the loss does not suffer."
    return f"The calls of shared layers differ by at most {largest}; batch noise explains {number(f.call_noise)}."


WORDS = Words(
    name="a layer shared by two domains",
    title="Shared layers serve all their inputs",
    failure_title="A shared layer averages two domains",
    description="A layer that is called on two kinds of data in one step (two towers, real and generated samples) "
    "normalizes each with its own batch in training, and both with one mean at inference.",
    absent="No layer is called more than once in a step.",
    passed=passed,
    failed=failed,
)
