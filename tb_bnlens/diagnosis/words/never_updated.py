"""Layers in training mode whose moving statistics are bit-identical to their start."""

from __future__ import annotations

import numpy as np

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import STANDARD, be, count, loss, momentum_range, part_of, some_of
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words

MODE = "# In your training step:  y_pred = model(x, training=True)\n"
RETRAIN = """\
# Then train again: weights that were trained with the initial statistics need these. New ones would break the model.
"""
AVERAGED = f"""\
# If the weights are a moving average of another network's, neither its statistics nor an average of them fit these
# weights. Take new ones before the average is used:
#   {code.RECALIBRATE.splitlines()[-1]}
# If they are copied from another network in training (a target network), copy {{}} too:
"""
COPY_IN_TORCH = f"""\
{AVERAGED.format("the buffers")}\
#   for a, b in zip(target.parameters(), online.parameters()): a.data.lerp_(b.data, 0.02)
#   for a, b in zip(target.buffers(), online.buffers()): a.copy_(b)
"""
MODE_IN_FLAX = """\
# Before the training loop. A step under jax.jit has to return the new nnx.BatchStat, as nnx.jit does.
model.train()
"""
COPY_IN_FLAX = f"""\
{AVERAGED.format("the nnx.BatchStat")}\
#   nnx.update(target, nnx.state(online, nnx.BatchStat))
"""
COPY = f"""\
{AVERAGED.format("the weights that are not trainable")}\
#   for a, b in zip(target.weights, online.weights): a.assign(0.98 * a + 0.02 * b)
#   for a, b in zip(target.non_trainable_variables, online.non_trainable_variables): a.assign(b)
"""


def failed(f: Facts, d: Decision) -> Said:
    """How many, and which of the two reasons."""
    still = f.never_updated
    kept = bool((f.layers.momentum[still] >= 1.0).all())
    n = len(d.layers)
    new = bool(f.initial[list(d.layers)].all()) and f.parts is not None
    # Weights that were trained with the initial statistics do best with them.
    harmful = d.severity > Severity.INFO and not f.never_by_batch
    # Whether training used these statistics shows in the losses alone.
    fix = _fix(f, copied=new and not f.never_by_batch, recalibrate=harmful and f.parts is None and f.evaluated)
    values = ", a mean of 0 and a variance of 1" if new else ""
    what = (
        f"{some_of(n, len(f.layers.names))} {be(n)} never updated: the moving statistics are bit-identical to their "
        f"start after {f.last_step:,} steps{values}"
    )
    evidence = {
        "updates": Evidence(
            "updates of these layers", float(f.layers.updates[still].max()), f.last_step, against="steps made"
        )
    }
    if f.checked:
        same = f"those of a new layer{values}" if new else "constant"
        what, evidence = f"The moving statistics of {part_of(n, len(f.layers.names))} are {same}", {}
    if kept:
        fix = code.set_momentum(f, 0.9 if f.in_torch else 0.99)
        why = f"Momentum {momentum_range(f, f.layers.momentum[still])} keeps the initial statistics."
    elif f.never_by_batch:
        why = _never_by_batch(f, new)
    elif f.checked:
        why = (
            "They were not loaded with the weights, or not copied with them from another network, or no step has "
            "called the model in training mode."
        )
    else:
        copies = "its updates go to copies (functional_call), " if f.in_torch else "its updates are dropped, "
        why = (
            f"{'The training step' if f.in_keras else 'Nothing'} calls the model {_mode(f)}, {copies}"
            "or the weights are copied from another network without its statistics."
        )
    return Said(
        f"{what}. {why}",
        evidence={
            **evidence,
            "distance": Evidence(
                "largest distance of these layers",
                float(np.nanmax(f.layers.distance[still], initial=0.0)),
                None,
                STANDARD,
            ),
        },
        rescue=code.RECALIBRATE if harmful and f.parts is not None else "",
        rescued="put_right:never_updated",
        fix=fix,
        next="Inference loss near the loss with batch statistics."
        if f.checked
        else "The moving statistics change at the next record.",
    )


def _never_by_batch(f: Facts, new: bool) -> str:
    """What the losses tell of the steps, and what it means."""
    told = (
        f"{'No step has called' if f.checked else 'The training step calls'} the model {_mode(f)}: it does better with "
        f"these statistics (loss {loss(f, f.typical('inference'))}) than with those of the batch "
        f"({loss(f, f.typical('batch'))}), so it was trained with them."
    )
    return f"{told} {'The layers normalize nothing.' if new else 'This is fine if it is intended.'}"


def _fix(f: Facts, *, copied: bool, recalibrate: bool) -> str:
    """The calls that update the statistics."""
    fix = code.load_statistics(f) if f.checked and copied else ""
    fix += code.told(f, keras=MODE, torch="# Before the training loop:\nmodel.train()\n", flax=MODE_IN_FLAX)
    if copied:
        fix += code.told(f, keras=COPY, torch=COPY_IN_TORCH, flax=COPY_IN_FLAX)
    if f.never_by_batch or not (f.evaluated or f.checked):
        fix += RETRAIN
    return fix + code.RECALIBRATE * recalibrate


def _mode(f: Facts) -> str:
    return "without training=True" if f.in_keras else "in training mode"


def passed(f: Facts, _d: Decision) -> str:
    """How many updates the layers have had."""
    if not f.layers.updating.any():
        return "No layer in training mode keeps its initial statistics."
    if np.isnan(f.layers.updates[f.layers.updating]).all():
        return "The statistics of every layer in training mode differ from those of a new layer."
    least = int(robust.median(f.layers.updates[f.layers.updating]))
    return (
        f"Every layer in training mode updates its statistics ({count(least, 'recorded update')} in the median layer)."
    )


WORDS = Words(
    name="layers that never update",
    title="Moving statistics are updated",
    failure_title="Moving statistics are never updated",
    description="Trainable layers in training mode whose moving statistics never change. The momentum is 1, a loop "
    "calls the model without training=True, or the updates are dropped.",
    in_torch={
        "description": "Layers in training mode whose running statistics never change. The momentum is 0, or the "
        "updates are dropped: buffers are copied back, or a target network gets parameters alone.",
    },
    in_flax={
        "description": "Layers in training mode whose running statistics never change. The momentum is 1, or the "
        "updates are dropped: a step under jax.jit does not return them, or a target network gets parameters alone.",
    },
    absent="The model has no BatchNorm layers.",
    passed=passed,
    failed=failed,
)
