"""PyTorch layers whose weights are not trained while their running statistics move."""

from __future__ import annotations

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.lag import LARGE_DISTANCE
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.in_torch import moved_since_start
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import STANDARD, WARNING_FROM, number, part_of, verb
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def passed(f: Facts, _d: Decision) -> str:
    """How many layers are frozen in both senses."""
    return "The running statistics of every layer whose weights are not trained stay as they are."


def _part(f: Facts, d: Decision) -> str:
    """The part of the model that holds these layers alone: the attribute that the names of all begin with."""
    first = {f.layers.names[i].partition(".")[0] for i in d.layers}
    others = {name.partition(".")[0] for i, name in enumerate(f.layers.names) if i not in d.layers}
    named = next(iter(first))
    return f"model.{named}" if len(first) == 1 and not first & others and named.isidentifier() else "model.backbone"


OF_THESE_DATA = f"""\
# The loaded statistics are of other data. Take those of these data first, once. Leave this out if the frozen part has
# to compute what it did when it was loaded, as a teacher does.
{code.RECALIBRATE}
"""


def failed(f: Facts, d: Decision) -> Said:
    """How many layers, and how far their statistics have moved."""
    n, moved = len(d.layers), moved_since_start(f, f.frozen_yet_updating)
    summary = (
        f"The weights of {part_of(n, len(f.layers.names))} are not trained, yet {'it' if n == 1 else 'they'} "
        f"{verb(n, 'stay')} in training mode and the running statistics have moved by up to {number(moved)} batch "
        "standard deviations. "
        "requires_grad=False does not freeze them; eval() does."
    )
    moved_far = d.severity > Severity.INFO
    if moved_far:
        summary += " The part that was meant to be frozen no longer computes what it was loaded with."
    return Said(
        summary,
        evidence={"moved": Evidence("movement since the record began", moved, LARGE_DISTANCE, STANDARD, WARNING_FROM)},
        rescue="# Only to have the part as it was loaded: load its statistics with its weights. Layers behind it have\n"
        "# learned with other statistics: train them again afterwards.\n"
        f"#   {_part(f, d)}.load_state_dict(checkpoint)\n"
        if moved_far
        else "",
        fix=(OF_THESE_DATA if moved_far else "")
        + "# Keep the frozen layers in eval mode. model.train() puts them back, so do this after each call of it:\n"
        + code.at_layers(f, [f.manifest.layers[i].access for i in d.layers], "layer.eval()"),
        next="The statistics of these layers stay as they are.",
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
