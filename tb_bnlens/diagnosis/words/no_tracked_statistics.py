"""PyTorch modules with ``track_running_stats=False``: inference normalizes by the batch, as training does."""

from __future__ import annotations

import math

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.compositions import composition, measured
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.in_torch import refuses_single_rows
from tb_bnlens.diagnosis.words.phrases import count, names, number
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words

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


def failed(f: Facts, _d: Decision) -> Said:
    """How many modules, and what single rows lose."""
    alone, evidence = f.typical("one_at_a_time"), {}
    summary = (
        f"{count(len(f.manifest.untracked), 'BatchNorm module')} ({names(f.manifest.untracked)}) with "
        "track_running_stats=False: eval mode normalizes with the batch. A prediction depends on the other rows of its "
        "batch, and on the size of the batch."
    )
    if refuses_single_rows(f):
        summary += " A single row raises an error: it has no variance."
    if math.isfinite(alone) and measured(f):
        size = f"in batches of {f.batches.size}" if f.batches.size else "in batches"
        summary += f" One row at a time, the loss is {number(alone)}; {size} it is {number(f.typical('inference'))}."
        cost = composition(f).alone
        evidence["alone"] = Evidence("loss on single rows, over that in batches", cost.value, f.warning_loss)
    return Said(
        summary,
        evidence=evidence,
        rescue=FIX + RECALIBRATE,
        fix=FIX,
        next="Predictions for a row are then the same alone and in a batch.",
    )


WORDS = Words(
    name="no tracked statistics",
    title="Every BatchNorm module tracks its statistics",
    failure_title="BatchNorm tracks no statistics",
    description="With track_running_stats=False a module has no running statistics and normalizes with the batch in "
    "eval mode too. That hides a gap between training and evaluation and moves it to deployment, where batches have "
    "other sizes and other rows.",
    absent="Every BatchNorm layer tracks its statistics.",
    passed=lambda f, _: "Every BatchNorm layer tracks its statistics.",
    failed=failed,
)
