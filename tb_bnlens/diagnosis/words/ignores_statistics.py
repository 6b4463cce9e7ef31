"""Layers that normalize by the batch at inference: the moving statistics are never used."""

from __future__ import annotations

import math

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.compositions import composition
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.in_torch import refuses_single_rows
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import added, number, some_of, verb
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words

FIX = """\
# In call(), pass the mode on to the layers:
#     def call(self, x, training=None):
#         x = self.norm(x, training=training)  # instead of training=True
# In a functional model, call the layer without the argument: x = norm(x)
"""
FIX_IN_FLAX = """\
# Call the layer without the argument, and let model.train() and model.eval() set its mode:
#     x = self.norm(x)  # instead of self.norm(x, use_running_average=False)
"""
FIX_IN_TORCH = """\
# Pass the module's mode to the function, or use nn.BatchNorm without changes:
#     F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias,
#                  self.training,  # instead of True
#                  self.momentum, self.eps)
"""


def failed(f: Facts, d: Decision) -> Said:
    """How many layers, and what single rows lose."""
    n, alone = len(d.layers), f.typical("one_at_a_time")
    summary = (
        f"{some_of(n, len(f.layers.names))} {verb(n, 'normalize')} with the batch at inference, as if called with "
        f"{_mode(f)} whatever the mode. Predictions for a row depend on the other rows of the batch, and predicting "
        "moves the statistics."
    )
    evidence = {}
    if refuses_single_rows(f):
        summary += " A single row raises an error: it has no variance."
    if math.isfinite(alone):
        size = f"in batches of {f.batches.size}" if f.batches.size else "in batches"
        summary += f" One row at a time, the inference loss is {number(alone)}; {size} it is {_loss(f)}."
        evidence["alone"] = added(f, "inference loss one row at a time - in batches", composition(f).alone)
    # PyTorch's mode is written into such a module, so no pass can have it on its moving statistics.
    repaired = math.nan if f.in_torch else f.typical("on_moving")
    if math.isfinite(repaired):
        evidence["moving"] = Evidence("inference loss with these layers on their moving statistics", repaired)
    return Said(
        summary,
        evidence=evidence,
        rescue=_rescue(f, d) if f.in_keras else "",
        rescued="" if f.in_torch else "on_moving",
        fix=code.told(f, keras=FIX, torch=FIX_IN_TORCH, flax=FIX_IN_FLAX),
        next="Predictions for a row are then the same alone and in a batch.",
    )


def _loss(f: Facts) -> str:
    return number(f.typical("inference"))


def _mode(f: Facts) -> str:
    return code.told(f, keras="training=True", torch="training=True", flax="use_running_average=False")


def _rescue(f: Facts, d: Decision) -> str:
    access = [f.manifest.layers[i].access for i in d.layers]
    return (
        "# A layer that is not trainable uses its moving statistics, whatever it is called with:\n"
        f"{code.at_layers(f, access, 'layer.trainable = False')}"
        "# Both were traced with the old flag:\nmodel.predict_function = model.test_function = None\n"
    )


WORDS = Words(
    name="inference with batch statistics",
    title="Inference uses the moving statistics",
    failure_title="BatchNorm normalizes with the batch at inference",
    description="A layer that is called with training=True in every mode normalizes each batch by itself, in "
    "evaluate() and predict() as well. The loss looks fine on large batches, but a row is predicted by the company it "
    "is in, and every prediction updates the moving statistics.",
    in_torch={
        "description": "A module whose forward pass calls batch_norm with training=True normalizes each batch by "
        "itself, after model.eval() as well. The loss looks fine on large batches, but a row is predicted by the "
        "company it is in, and every prediction updates the running statistics.",
    },
    in_flax={
        "description": "A layer that is called with use_running_average=False in every mode normalizes each batch by "
        "itself, after model.eval() as well. The loss looks fine on large batches, but a row is predicted by the "
        "company it is in, and every prediction updates the running statistics.",
    },
    absent="The model has no BatchNorm layers.",
    unknown=lambda _: "This takes a trace of the model in inference mode.",
    passed=lambda f, _: (
        "In eval mode every layer that has running statistics uses them."
        if not f.in_keras
        else "In inference mode every layer is called without training=True."
    ),
    failed=failed,
)
