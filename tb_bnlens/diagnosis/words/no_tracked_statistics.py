"""PyTorch modules with ``track_running_stats=False``: inference normalizes by the batch, as training does."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.compositions import composition, measured
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.in_torch import refuses_single_rows
from tb_bnlens.diagnosis.words.phrases import added, count, names, number, verb
from tb_bnlens.diagnosis.words.words import Said, Words

FIX = """\
# Track the statistics, and train on. A new module starts at a mean of 0 and a variance of 1:
from torch.nn.modules.batchnorm import _BatchNorm

for layer in model.modules():
    if isinstance(layer, _BatchNorm) and layer.running_mean is None:
        track = dict(momentum=layer.momentum, affine=layer.affine, track_running_stats=True)
        fresh = type(layer)(layer.num_features, eps=layer.eps, **track)
        layer.track_running_stats = True
        for name, buffer in fresh.named_buffers():
            layer.register_buffer(name, buffer.to(next(model.parameters()).device))
"""
RECALIBRATE = """
import tb_bnlens.torch

# Statistics for the weights as they are:
tb_bnlens.torch.recalibrate(model, data, batches=200)
"""


REGISTER = """\
# Make the modules part of the model, so that eval(), to() and parameters() reach them:
#   self.norms = torch.nn.ModuleList(norms)   # in place of a plain list
#   self.norm = torch.nn.BatchNorm1d(64)      # in __init__, not in forward
# A function takes the mode:
#   torch.nn.functional.batch_norm(..., training=self.training)
"""
HELD = re.compile(r"((?:\w+\.)*)(\w+)\[(.+)\]")
"""A module in a plain container, as ``path.attribute[key]``."""


def failed(f: Facts, _d: Decision) -> Said:
    """How many modules, and what single rows lose."""
    alone, evidence = f.typical("one_at_a_time"), {}
    untracked, unreached = f.manifest.untracked, f.manifest.unreached
    what = []
    if untracked:
        module = count(len(untracked), "BatchNorm module")
        what.append(
            f"{module} ({names(untracked)}) with track_running_stats=False: eval mode normalizes with the batch."
        )
    if unreached:
        parts = "a part" if len(unreached) == 1 else f"{len(unreached)} parts"
        they = f"{'It' if len(unreached) == 1 else 'They'} {verb(len(unreached), 'normalize')}"
        what.append(
            f"model.eval() does not reach {parts} of the model: {names(unreached)}. {they} with the batch in every "
            "mode."
        )
    summary = f"{' '.join(what)} A prediction depends on the other rows of its batch, and on the size of the batch."
    if refuses_single_rows(f):
        summary += " A single row raises an error: it has no variance."
    if math.isfinite(alone) and measured(f):
        size = f"in batches of {f.batches.size}" if f.batches.size else "in batches"
        summary += f" One row at a time, the loss is {number(alone)}; {size} it is {number(f.typical('inference'))}."
        evidence["alone"] = added(f, "loss one row at a time - in batches", composition(f).alone)
    return Said(
        summary,
        evidence=evidence,
        rescue=FIX + RECALIBRATE if untracked else _registered(unreached),
        fix=(FIX if untracked else "") + (REGISTER if unreached else ""),
        next="Predictions for a row are then the same alone and in a batch.",
    )


def _registered(unreached: Sequence[str]) -> str:
    """Code that makes what is in plain containers part of the model; empty where nothing is."""
    found = dict.fromkeys(m.group(1, 2) for name in unreached if (m := HELD.fullmatch(name)))
    if not found:
        return ""
    owners = "".join(
        f"owner = model.get_submodule({path.rstrip('.')!r})\n"
        f"held = owner.__dict__.pop({attribute!r})\n"
        f"owner.{attribute} = (torch.nn.ModuleDict if isinstance(held, dict) else torch.nn.ModuleList)(held)\n"
        for path, attribute in found
    )
    return f"import torch\n\n{owners}{RECALIBRATE}"


WORDS = Words(
    name="no tracked statistics",
    title="Every BatchNorm module tracks its statistics",
    failure_title="BatchNorm normalizes with the batch in eval mode",
    description="With track_running_stats=False a module has no running statistics and normalizes with the batch in "
    "eval mode too. That hides a gap between training and evaluation and moves it to deployment, where batches have "
    "other sizes and other rows.",
    absent="Every BatchNorm layer tracks its statistics.",
    passed=lambda f, _: "Every BatchNorm layer tracks its statistics.",
    failed=failed,
)
