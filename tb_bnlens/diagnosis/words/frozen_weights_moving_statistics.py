"""PyTorch layers whose weights are not trained while their running statistics move."""

from __future__ import annotations

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.lag import LARGE_DISTANCE
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.in_torch import moved_since_start
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import STANDARD, number, part_of, verb
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def passed(f: Facts, _d: Decision) -> str:
    """How many layers are frozen in both senses."""
    return "The running statistics of every layer whose weights are not trained stay as they are."


def failed(f: Facts, d: Decision) -> Said:
    """How many layers, and how far their statistics have moved."""
    n, moved = len(d.layers), moved_since_start(f, f.frozen_yet_updating)
    summary = (
        f"The weights of {part_of(n, len(f.layers.names))} are not trained, yet {'it' if n == 1 else 'they'} "
        f"{verb(n, 'stay')} in training mode and the running statistics have moved by up to {number(moved)} batch "
        "standard deviations. "
        "requires_grad=False does not freeze them; eval() does."
    )
    if d.severity > Severity.INFO:
        summary += " The part that was meant to be frozen no longer computes what it was loaded with."
    return Said(
        summary,
        evidence={"moved": Evidence("movement since the record began", moved, LARGE_DISTANCE, STANDARD)},
        rescue="# Load the statistics again with the weights of the frozen part:\n"
        "#   model.backbone.load_state_dict(checkpoint)\n",
        fix="# Keep the frozen layers in eval mode. model.train() puts them back, so do this after each call of it:\n"
        + code.at_layers(f, [f.manifest.layers[i].access for i in d.layers], "layer.eval()"),
        next="The statistics of these layers are bit-identical to the loaded ones.",
    )


WORDS = Words(
    name="frozen weights with moving statistics",
    title="Layers with frozen weights keep their statistics",
    failure_title="Weights are frozen and statistics keep moving",
    description="In PyTorch, requires_grad=False and an optimizer without the parameters freeze weights. Running "
    "statistics are buffers: a layer in training mode updates them at each forward pass. A backbone that counts as "
    "frozen then changes from step to step, and results that compare it with the original are wrong.",
    absent="The weights of every layer are trained, or the framework freezes both together.",
    passed=passed,
    failed=failed,
)
