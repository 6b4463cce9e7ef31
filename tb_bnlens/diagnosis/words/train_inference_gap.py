"""The gap itself: the same batch and weights, batch statistics against moving statistics."""

from __future__ import annotations

import math

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.loss_gap import Gap
from tb_bnlens.analysis.measured import MOST
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import (
    LESS_BATCH,
    WARNING_FROM,
    added,
    against_batch,
    by_metric,
    count,
    loss,
    modes,
    no_losses,
    number,
)
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words

ONE_MOMENT = "A check looks at one moment, which does not tell the cause. Record the training to see what changes."
NOT_OF_THESE = (
    "The moving statistics are not those of this data at these weights. They may have lagged when training ended, been "
    "moved by calls in training mode on other data, be those of other weights (changed since, or averaged, as by SWA "
    "or EMA), or not be loaded as they were saved, with the same epsilon. Or these data are preprocessed otherwise "
    "than in training. A check does not tell which; a record of the training does."
)

IN_KERAS = "# Keep variables in float32:\nimport keras\n\nkeras.mixed_precision.set_global_policy('mixed_bfloat16')\n"
IN_TORCH = (
    "# Keep the model in float32, without .half() or .bfloat16(), and compute in half precision:\n"
    "#   with torch.autocast(device, dtype=torch.bfloat16):\n"
)
IN_FLAX = (
    "# Keep the statistics in float32:\n#   nnx.BatchNorm(channels, dtype=jnp.bfloat16, param_dtype=jnp.float32)\n"
)


def failed(f: Facts, d: Decision) -> Said:
    """The gap and its two parts."""
    if not f.has_layers:
        return _without_layers(f)
    recalibrated = loss(f, f.typical("recalibrated"))
    noise = f.losses.gap("recalibrated", "batch") if f.parts is None else f.drift_left
    unexplained = _unexplained(f)
    reason = f"{unexplained} With recalibrated statistics the loss is {recalibrated}."
    return Said(
        f"With the same weights and batch, {against_batch(f)}. {unexplained}",
        reason=unexplained if _too_little(f) else reason,
        evidence={
            **by_metric(
                f.gap, {"gap": added(f, LESS_BATCH, f.gap)}, f.measured, ("inference", "inference"), _held_against(f)
            ),
            **(_parts(f, noise) if f.parts is not None or f.losses.windows_serve else {}),
            "uncertainty": Evidence("standard error of the gap", f.gap.uncertainty),
        },
        rescue=code.rescue(f, d.severity),
        rescued="recalibrated",
        fix=_fix(f),
        next="" if _too_little(f) else _what_is_left(f),
    )


def _held_against(f: Facts) -> tuple[str, str]:
    return "batch statistics", "" if f.measured is None else f.measured.rival


def _parts(f: Facts, noise: Gap) -> dict[str, Evidence]:
    return {
        "stale": Evidence("part from stale statistics (inference - recalibrated)", f.stale.value),
        "noise": Evidence("part from batch noise (recalibrated - batch statistics)", noise.value),
    }


def _fix(f: Facts) -> str:
    if f.half_precision and _is_stale(f):
        return code.told(f, keras=IN_KERAS, torch=IN_TORCH, flax=IN_FLAX)
    return code.RECALIBRATE if f.parts is None and not _too_little(f) else ""


def _without_layers(f: Facts) -> Said:
    """No layer is recorded, and yet the mode matters."""
    why = (
        "Dropout and its like make training worse, not inference. Code that normalizes by the batch in training does "
        "this, and so does code that sees the targets there (teacher forcing)."
    )
    return Said(
        f"With the same weights and batch, the loss is {loss(f, f.typical('inference'))} at inference and "
        f"{loss(f, f.typical('training'))} in training mode. {why}",
        reason=why,
        evidence={"gap": Evidence("inference - training", f.gap.value, f.warning_loss, against=WARNING_FROM)},
        next="The two losses agree where the same statistics serve both modes.",
    )


def _is_stale(f: Facts) -> bool:
    return f.stale.significant and f.stale.size >= MOST * f.gap.size


def _too_little(f: Facts) -> bool:
    """Whether a probe or two show the gap and cannot tell its parts."""
    return f.gap.tentative or (f.parts is None and f.losses.tentative and not f.losses.windows_serve)


def _unexplained(f: Facts) -> str:
    """What is known of the cause."""
    if _too_little(f):
        probes = f"{count(len(f.losses.judged), 'probe')} up to step {f.losses.step or 0:,}"
        return (
            f"This is of {probes}, too little to name a cause. The end of training is measured on many batches, and "
            f"{code.check(f)} measures the present model."
        )
    if f.checked:  # which has not looked for causes that show over time, such as drift
        return NOT_OF_THESE if _is_stale(f) else ONE_MOMENT
    off = robust.largest(f.layers.distance)
    if not _is_stale(f) or math.isnan(off):
        return "No known cause explains it."
    said = f"It comes from the moving statistics, which are at most {number(off)} standard deviations off."
    if f.half_precision:
        return (
            f"{said} They are kept in half precision, where an update smaller than half a unit in the last place is "
            "lost: the statistics stop on their way, the farther off the slower they move."
        )
    if f.parts is not None and f.parts.drifting.any():
        # The records are too far apart to tell which.
        return (
            f"{said} Their initial values are forgotten, so either the batch statistics move faster than the moving "
            "ones follow, or something besides the training step calls the model in training mode, such as an "
            "evaluation."
        )
    return f"{said} No known cause explains why."


def _what_is_left(f: Facts) -> str:
    """What the intervention has told, or what it will tell."""
    if not f.stale.known:
        return "If recalibrated statistics close the gap, the present ones do not fit. If not, look at the batches."
    if _is_stale(f):
        return "Recalibrated statistics close most of the gap, so the moving statistics do not fit data and weights."
    return "Recalibrated statistics leave most of the gap, so look at the batches."


WORDS = Words(
    name="a gap on training data",
    title="Inference agrees with batch statistics",
    failure_title="Inference is worse than with batch statistics",
    description="Both losses are measured on one batch with one set of weights and dropout off, so only BatchNorm "
    "differs. The gap splits into stale statistics (inference - recalibrated) and batch noise (recalibrated - batch).",
    absent="The model has no BatchNorm layers.",
    unknown=no_losses,
    passed=lambda f, _: (
        f"With the same weights and batch: {modes(f)}." if f.has_layers else "Inference is no worse than training mode."
    ),
    failed=failed,
)
