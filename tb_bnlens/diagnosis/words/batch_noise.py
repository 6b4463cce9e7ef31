"""No fixed statistics serve the network: it relies on each batch's own."""

from __future__ import annotations

import math

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.advice import larger_batches
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.conditions import SCATTER
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import STANDARD, added, number, sentence
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def _losses(f: Facts) -> str:
    best, rival = _best(f)
    return f"the best fixed statistics give a loss of {number(best)}, batch statistics {number(rival)}"


def _best(f: Facts) -> tuple[float, float]:
    """The best loss with fixed statistics, and the loss with batch statistics."""
    if f.composition is not None and f.measured is not None:
        return f.measured.mean(f.composition.best_fixed), f.rival_loss
    return robust.median(f.best_fixed), f.typical("batch")


def passed(f: Facts, _d: Decision) -> str:
    """What fixed statistics give, and how much single batches scatter."""
    if math.isnan(_scatter(f)):
        return f"{sentence(_losses(f))}."
    return f"The statistics of single batches scatter by {number(_scatter(f))} standard deviations; {_losses(f)}."


def _scatter(f: Facts) -> float:
    return f.largest_scatter if f.composition is None else robust.largest(f.composition.batch_scatter)


def failed(f: Facts, _d: Decision) -> Said:
    """How much single batches scatter, and the batch size at which that would cost little."""
    size = f"batches of {f.batches.size}" if f.batches.size else "these batches"
    noise = f.noise if f.composition is None else f.composition.noise
    evidence = {
        "part": added(f, "loss added by the best fixed statistics", noise),
        "scatter": Evidence("scatter of a single batch's statistics (noisiest layer)", _scatter(f), SCATTER, STANDARD),
        "batch_size": Evidence("batch size", f.batches.size),
    }
    if math.isfinite(f.typical("pooled")):
        evidence["pooled"] = Evidence(
            "inference loss with statistics of batches four times as large", f.typical("pooled")
        )
    summary = f"No fixed statistics serve this network: {_losses(f)}."
    if not math.isnan(_scatter(f)):
        summary += (
            f" With {size}, the statistics of a single batch scatter by {number(_scatter(f))} standard deviations in "
            "the noisiest layer."
        )
    return Said(
        summary,
        evidence=evidence,
        rescue=_each_by_itself(f),
        rescued="batch",
        fix=code.larger_batches(f, larger_batches(f.batches.size, noise.harm)),
        next="Recalibrated statistics then give the loss with batch statistics.",
    )


def _each_by_itself(f: Facts) -> str:
    """In batches of one the statistics of a batch are those of its row, which inference has as well."""
    if not f.in_torch or f.batches.size != 1:
        return ""
    statement = "layer.track_running_stats = False\n    layer.running_mean = layer.running_var = None"
    return (
        "# Normalize each row by itself, as training does. From then on rows have to come one at a time:\n"
        + code.at_layers(f, [layer.access for layer in f.manifest.layers], statement)
    )


WORDS = Words(
    name="batch noise",
    title="Batch noise does not hurt inference",
    failure_title="Batch statistics are too noisy for fixed ones to replace",
    description="With few samples a channel, the statistics of each batch differ from their mean, and a network that "
    "learned with them loses when they are fixed. Waiting does not help, nor does accumulating gradients: each small "
    "batch is still normalized alone.",
    absent="The model has no BatchNorm layers.",
    unknown=lambda f: (
        "This takes more batches than have been probed lately."
        if f.noise.known
        else "This takes the loss with recalibrated statistics."
    ),
    passed=passed,
    failed=failed,
)
