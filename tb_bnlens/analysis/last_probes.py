"""Read the paired losses of a run's last probes, and the scale that a gap between them is judged by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tb_bnlens.analysis import yardstick
from tb_bnlens.analysis.loss_gap import WINDOW, Array, Losses
from tb_bnlens.history import Evidence, History, trained
from tb_bnlens.metadata import FORECAST_POINTS, LOSS_KINDS, REPLAY_MOMENTUMS, replay_row

WINDOW_SHARE = 0.2
"""...as long as they lie in the last fifth of the run: what is older is another network."""
SPREAD_SHARE = 0.5
"""The spread from probe to probe is taken over the second half of the run; before, the loss falls too fast."""
IN_NATS = 0.5
"""Share of the classes' entropy that a loss in nats begins with at least."""
LEAST_FALL = 0.1
"""The fall counts as progress when it is a tenth of the loss (or of ``yardstick.unit``) and three times its spread from
probe to probe."""


def measure(history: History, probe: str = "train", evidence: Evidence | None = None) -> Losses:
    """Read the paired losses of a run's last probes and the scale against which a gap is judged.

    The scale is ``yardstick.unit`` of the evidence, with the floors named above. Without evidence it is the batch-mode
    loss where losses have a natural zero (none is negative), and at least the loss's spread from probe to probe; where
    a loss can be negative its ratio means nothing, and the scale is what the loss fell since the start, or that spread.

    Args:
        history: of the run.
        probe: one of ``metadata.PROBES``.
        evidence: the measurement on many batches that the run is judged by, if any.

    Example:
        A batch loss of 1.4 and an inference loss of 2.8, without any history, is a gap of harm 1.0.
    """
    columns = _columns(history, probe)
    reasons = history.manifest.not_evaluated
    diverged = _diverged(columns, reasons, evidence)
    known = np.isfinite(columns["batch"]) | np.isfinite(columns["training"]) | ~np.isnan(columns["inference"])
    measured = np.flatnonzero(known)
    if not len(measured):
        return Losses(diverged=diverged, not_evaluated=reasons)
    last, steps = int(measured[-1]), history.loss_steps
    columns["inference"] = _with_overflow(history, columns, last)
    late = measured[-WINDOW:]
    losses = Losses(
        columns=columns,
        steps=steps.astype(np.float64),
        measured=measured,
        judged=late[steps[late] >= (1.0 - WINDOW_SHARE) * steps[last]],
        settled=np.flatnonzero(steps[: last + 1] >= SPREAD_SHARE * steps[last]),
        old=bool(steps[last] < (1.0 - WINDOW_SHARE) * (history.last_step or 0)),
        diverged=diverged,
        not_evaluated=reasons,
    )
    forecast, forecast_limit = _forecast(losses.window)
    unlearned = _unlearned(evidence)
    unit = math.nan if evidence is None else yardstick.unit(evidence)
    settled = losses.course["batch"]
    noise = _probe_noise(settled[np.isfinite(settled)])
    return replace(
        losses,
        forecast=forecast,
        forecast_limit=forecast_limit,
        progress=_progress(columns["batch"], losses.typical.get("batch", math.nan), noise, unit),
        probe_noise=noise,
        natural_zero=_natural_zero(columns, evidence, unit),
        unit=unit,
        target_entropy=_entropy(columns, unlearned),
        unlearned=unlearned,
    )


def _unlearned(evidence: Evidence | None) -> float:
    rise = math.nan if evidence is None else evidence.mean("mismatched") - evidence.mean(trained(evidence.passes))
    return rise if rise > 0.0 else 0.0


def _entropy(columns: Mapping[str, Array], unlearned: float) -> float:
    """Mean over the probed batches, which may hold some of the classes each; 0 where the loss is not in nats.

    A loss of classes begins near their entropy or above it, or comes there with the targets of other rows. Labels that
    come along with a reconstruction, and numbers that a loss divides, leave it smaller.
    """
    told, batch = (columns[name][np.isfinite(columns[name])] for name in ("target_entropy", "batch"))
    if not len(told) or told.min() < 0.0:
        return 0.0
    entropy = float(told.mean())
    return entropy if max(batch[:3].max(initial=0.0), unlearned) >= IN_NATS * entropy else 0.0


def _columns(history: History, probe: str) -> dict[str, Array]:
    names = [*LOSS_KINDS, *(replay_row(m) for m in REPLAY_MOMENTUMS), "fit_loss", "learning_rate", "batch_size"]
    names += [f"forecast{s}_{i}" for i in range(FORECAST_POINTS) for s in ("", "_step")]
    names += ["short_updates", "long_updates", "recalibrated_now", "target_entropy"]
    return {name: history.loss(name, probe).astype(np.float64) for name in names}


def _with_overflow(history: History, columns: Mapping[str, Array], last: int) -> Array:
    """The inference losses, inf from where poisoned statistics made them NaN.

    A NaN loss and a loss that was not measured look the same in the record; poisoned statistics distinguish them.
    """
    batch, inference = columns["batch"], np.array(columns["inference"])
    if not np.nansum(history.last("channels_nonfinite")) > 0 or "inference" in history.manifest.not_evaluated:
        return inference
    ever = np.flatnonzero(~np.isnan(inference))
    inference[(int(ever[-1]) + 1 if len(ever) else 0) : last + 1] = np.inf
    return np.asarray(np.where(np.isfinite(batch), inference, columns["inference"]))


def _natural_zero(columns: Mapping[str, Array], evidence: Evidence | None, unit: float) -> bool:
    """Whether losses start from zero; without a unit, whether none is negative."""
    if evidence is not None and math.isfinite(unit):
        return yardstick.from_zero(evidence)
    values = np.concatenate([columns[kind] for kind in ("batch", "inference", "recalibrated", "training")])
    return bool(np.min(values[np.isfinite(values)], initial=0.0) >= 0.0)


def _progress(batch: Array, level: float, noise: float, unit: float) -> float:
    """What the loss fell since the first probes, 0 where that is not clear."""
    batch = batch[np.isfinite(batch)]
    size = abs(level) if math.isnan(unit) else unit
    progress = float(batch[:3].max() - level) if len(batch) > 3 and math.isfinite(level) else 0.0
    return progress if progress > max(3.0 * noise, LEAST_FALL * size) else 0.0


def _forecast(window: Mapping[str, Array]) -> tuple[tuple[tuple[float, float], ...], float]:
    looked_ahead = np.flatnonzero(~np.isnan(window["forecast_0"]) & ~np.isnan(window["inference"]))
    if not len(looked_ahead):
        return (), math.nan
    at = looked_ahead[-1]
    points = [
        (float(window[f"forecast_step_{i}"][at]), float(window[f"forecast_{i}"][at])) for i in range(FORECAST_POINTS)
    ]
    known = sorted(p for p in points if not (math.isnan(p[0]) or math.isnan(p[1])))
    return ((0.0, float(window["inference"][at])), *known), float(window["recalibrated"][at])


def _diverged(columns: Mapping[str, Array], not_evaluated: Mapping[str, str], evidence: Evidence | None) -> bool:
    """Whether the loss in training mode is no longer finite. NaN also stands for "not measured"."""
    fit, batch = columns["fit_loss"], columns["batch"]
    if not len(fit):
        return False
    if any(np.isinf(columns[kind][-1]) for kind in ("training", "batch", "fit_loss")):
        return True
    known = "losses" not in not_evaluated
    if not np.isfinite(fit).any():
        return known and _no_batch_has_a_loss(columns, evidence)
    # The last probe of a run follows the last step, so it has no fit_loss. Where no other loss is measured, it takes
    # two probes without a fit_loss to conclude that the loss is NaN.
    return bool(np.isnan(fit[-1]) and np.isnan(batch[-1]) if known else len(fit) > 1 and np.isnan(fit[-2:]).all())


def _no_batch_has_a_loss(columns: Mapping[str, Array], evidence: Evidence | None) -> bool:
    """Whether no kept batch has a loss any more, or the last two probes have none where no batches were judged.

    A single batch may have no loss, as one without a label. The size of its batch shows that a probe was made.
    """
    if evidence is not None:
        kept = [evidence.passes[name].losses for name in ("training", "batch") if name in evidence.passes]
        return bool(kept) and not any(np.isfinite(losses).any() for losses in kept)
    training, batch = columns["training"], columns["batch"]
    lost = ~np.isnan(columns["batch_size"]) & np.isnan(batch) & np.isnan(training)
    return bool(len(lost) > 1 and lost[-2:].all() and np.isfinite(training).any())


def _probe_noise(values: Array) -> float:
    """Robust standard deviation from probe to probe, from successive differences so that a trend adds nothing."""
    d = np.diff(values)
    return 1.4826 * float(np.median(np.abs(d))) / math.sqrt(2.0) if len(d) >= 2 else 0.0
