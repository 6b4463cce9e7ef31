"""One layer called several times a step on unlike data."""

from __future__ import annotations

import math

import numpy as np

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.in_batches import CALL_NOISE_FACTOR, is_more_than_a_pair, is_pair
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import STANDARD, added, be, count, number, verb
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words
from tb_bnlens.metadata import TIME_DISTRIBUTED


def failed(f: Facts, d: Decision) -> Said:
    """How far the calls' batches lie apart."""
    over_time = [i for i in d.layers if TIME_DISTRIBUTED in f.manifest.layers[i].kind]
    return _over_time(f, d) if over_time else _two_kinds(f, d)


def _two_kinds(f: Facts, d: Decision) -> Said:
    n, calls = len(d.layers), _calls(f, d)
    times = f"{calls} times" if calls > 1 else "more than once"
    sees, fits = (
        (f"{verb(n, 'see')} two kinds of data in each step", "both, which fits neither")
        if is_pair(calls)
        else (f"{be(n)} called {times} in each step, on unlike data", "all calls, which fits none")
    )
    return Said(
        f"{count(n)} {sees}: the batch statistics of the calls differ by up to {number(_largest(f))} standard "
        f"deviations. Inference uses one mean for {fits}.{_averaged(f)}",
        evidence=_evidence(f),
        fix=_own_layers(f, d),
        next="The moving statistics of each layer agree with its own batches.",
    )


def _calls(f: Facts, d: Decision) -> int:
    """Calls of these layers in a step, at most; 1 where they were not counted yet."""
    return max(f.manifest.layers[i].calls for i in d.layers)


def _own_layers(f: Facts, d: Decision) -> str:
    first = f.manifest.layers[d.layers[0]]
    made = code.told(
        f,
        keras="keras.layers.BatchNormalization()",
        torch=f"torch.nn.{first.kind.partition(' ')[0]}({first.channels})",
        flax=f"nnx.BatchNorm({first.channels}, rngs=nnx.Rngs(0))",
    )
    package = code.told(f, keras="import keras", torch="import torch", flax="from flax import nnx")
    calls = _calls(f, d)
    of, own = "kind of data", f"norm_a, norm_b = {made}, {made}"
    if is_more_than_a_pair(calls):
        of = "call"
        layers = f"[{made} for _ in range({calls})]"
        own = (
            f"norms = {code.told(f, keras=layers, torch=f'torch.nn.ModuleList({layers})', flax=f'nnx.List({layers})')}"
        )
    return f"{package}\n\n# One layer for each {of}; the other weights stay shared:\n{own}\n"


def _over_time(f: Facts, d: Decision) -> Said:
    """A ``TimeDistributed`` calls the layer once a time step."""
    n, times = len(d.layers), _calls(f, d)
    return Said(
        f"TimeDistributed calls {count(n)} {times} times a step, once for each time step, and these differ by up to "
        f"{number(_largest(f))} standard deviations. Training normalizes each time step by its own statistics, and "
        f"inference all of them by one mean.{_averaged(f)}",
        evidence=_evidence(f),
        rescue=code.RECALIBRATE if f.stale.significant else "",
        rescued="recalibrated",
        fix="# BatchNormalization takes the whole [batch, time, feature] tensor: no TimeDistributed around it, nor\n"
        "# around a model that holds it. Training and inference then normalize all time steps the same way:\n"
        "#     x = keras.layers.BatchNormalization()(x)\n"
        "# instead of\n"
        "#     x = keras.layers.TimeDistributed(keras.layers.BatchNormalization())(x)\n",
        next="The layer is called once a step, and inference agrees with batch statistics.",
    )


def _averaged(f: Facts) -> str:
    averaged = f.typical("calls_averaged")
    if math.isnan(averaged):
        return ""
    return f" With one mean for all calls, batch statistics give a loss of {number(averaged)} as well."


def _largest(f: Facts) -> float:
    return robust.largest(f.layers.alternation)


def _noise(f: Facts) -> float:
    """What batch noise explains in the layer whose calls lie farthest apart."""
    return float(f.call_noise[int(np.nanargmax(f.layers.alternation))])


def _evidence(f: Facts) -> dict[str, Evidence]:
    limit = CALL_NOISE_FACTOR * _noise(f)
    told = limit if _largest(f) > limit else None  # else the loss tells
    found = {"alternation": Evidence("largest distance between two calls", _largest(f), told, STANDARD)}
    if f.composition is not None and f.composition.of_calls.known:
        found["calls"] = added(f, "loss added by one mean for all calls", f.composition.of_calls)
    return found


def passed(f: Facts, d: Decision) -> str:
    """How far the calls lie apart, against batch noise."""
    largest = number(_largest(f))
    if d.where is not None:
        return f"The calls of shared layers differ by up to {largest} standard deviations; the loss does not suffer."
    return f"The calls of shared layers differ by at most {largest}; batch noise explains {number(_noise(f))}."


WORDS = Words(
    name="a layer shared by two domains",
    title="Shared layers serve all their inputs",
    failure_title="A shared layer averages unlike data",
    description="A layer that is called on two kinds of data in one step (two towers, real and generated samples) "
    "normalizes each with its own batch in training, and both with one mean at inference.",
    absent="No layer is called more than once in a step.",
    passed=passed,
    failed=failed,
)
