"""The loss gap and its parts: losses of one batch at one set of weights under several normalizations.

``training - batch`` is dropout and other training-only layers, ``inference - recalibrated`` stale statistics,
``recalibrated - batch`` batch noise, ``inference - batch`` BatchNorm in all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis import yardstick
from tb_bnlens.history import Evidence, History
from tb_bnlens.metadata import FORECAST_POINTS, LOSS_KINDS, REPLAY_MOMENTUMS, replay_row

Array = NDArray[np.float64]

WINDOW = 5
"""Last probes that are judged together; a median of five survives two odd batches."""
WINDOW_SHARE = 0.2
"""...as long as they lie in the last fifth of the run: what is older is another network."""
CORROBORATION = 3
"""Probes of cheap steps are few and far between. With fewer than this many in the window, the median over the last
this many of any age has to show the gap too, or one odd batch would be a verdict."""
JUMP_QUANTILE = 0.9
"""A jump is what one probe in ten exceeds."""
STANDARD_ERRORS = 2.0
"""A part is real when its median over the window is more than this many standard errors above zero."""
SPREAD_SHARE = 0.5
"""The spread from probe to probe is taken over the second half of the run; before, the loss falls too fast."""
GEOMETRIC_SHARE = 1e-3
FLOOR_SHARE = 1e-4
"""A loss near zero makes any ratio large. What the loss fell since the start tells how small is small: a gap is
measured against the geometric mean of the loss and a thousandth of that fall, and never against less than a
ten-thousandth of it."""
LEAST_FALL = 0.1
"""The fall counts as progress when it is a tenth of the loss (or of ``yardstick.unit``) and three times its spread from
probe to probe."""

NOTE_HARM = 0.1
"""Harm from which a gap is worth a note. These three are chosen, not derived: they say what a user would mind. Noise
does not reach them, since a gap counts only beyond its spread over the last probes; the largest harm in 27 healthy
runs (tests/diagnosis/healthy.py) was 0.08."""
WARNING_HARM = 0.5
"""Harm from which a gap is a warning: the loss is 50% higher, or half of the progress is lost."""
ERROR_HARM = 1.0
"""Harm from which a gap is an error: the loss is doubled, or all that training gained is lost."""


@dataclass(frozen=True)
class Gap:
    """A difference of two losses, robust over the last probes."""

    value: float
    """Median over the window, in loss units; NaN where a loss was not measured, inf where one overflowed."""
    uncertainty: float
    """Standard error of that median; NaN with fewer than three probes."""
    harm: float
    """``value`` against the scale of the loss: 1 doubles the loss or undoes the training."""
    corroborated: bool = True
    """False where it rests on a probe or two that those before contradict."""

    @property
    def known(self) -> bool:
        """Whether both losses were measured."""
        return not math.isnan(self.value)

    @property
    def significant(self) -> bool:
        """Whether it stands out from the spread between probes."""
        noise = self.uncertainty if self.uncertainty >= 0 else 0.0
        return self.known and self.corroborated and self.value > STANDARD_ERRORS * noise

    def at_least(self, harm: float) -> bool:
        """Whether it is significant and does at least this much harm."""
        return self.significant and self.harm >= harm


@dataclass(frozen=True)
class Losses:
    """What the last probes say. ``now`` holds the last probe, ``typical`` the medians over the window."""

    step: int | None = None
    now: Mapping[str, float] = field(default_factory=dict)
    typical: Mapping[str, float] = field(default_factory=dict)
    window: Mapping[str, Array] = field(default_factory=dict)
    """Kind -> values over the window, [<= WINDOW]."""
    tail: Mapping[str, Array] = field(default_factory=dict)
    """The last ``WINDOW`` probes of any age."""
    course: Mapping[str, Array] = field(default_factory=dict)
    """Kind -> values over the second half of the run, oldest first, the window included."""
    steps: Array = field(default_factory=lambda: np.empty(0))
    """Steps of ``course``."""
    forecast: tuple[tuple[float, float], ...] = ()
    """(updates ahead, inference loss) of the last probe that looked ahead, (0, its inference loss) first."""
    forecast_limit: float = math.nan
    """The recalibrated loss of that probe, which the forecast tends to."""
    level: float = 0.0
    """The loss itself, for "within tolerance of it"; as ``scale`` where it has no natural zero."""
    progress: float = 0.0
    """What the loss fell since the start; 0 where that is not clear."""
    spread: float = 0.0
    natural_zero: bool = True
    unit: float = math.nan
    """``yardstick.unit``; NaN without a measurement on many batches."""
    diverged: bool = False
    """The losses themselves are no longer finite, in training mode too."""
    not_evaluated: Mapping[str, str] = field(default_factory=dict)

    @property
    def evaluated(self) -> bool:
        """Whether inference and batch-mode losses were measured."""
        return self.step is not None and self.gap("inference", "batch").known

    def gap(self, upper: str, lower: str) -> Gap:
        """The gap between two kinds, paired probe by probe."""
        level = self.typical.get(lower, math.nan)
        gap = self.judge(_difference(self.window, upper, lower), level)
        last = _difference(self.tail, upper, lower)[-CORROBORATION:]
        last = last[~np.isnan(last)]
        if len(last) < CORROBORATION or np.sum(~np.isnan(_difference(self.window, upper, lower))) >= CORROBORATION:
            return gap
        # A statistic that is not finite stays so: it needs no second probe.
        agreed = math.isinf(gap.value) or self.harm(float(np.median(last)), level) >= NOTE_HARM
        return replace(gap, corroborated=agreed)

    def lasting_gap(self, upper: str, lower: str) -> Gap:
        """The same over more probes, for parts that have nothing to do with the age of the statistics."""
        return self.judge(_difference(self.course, upper, lower)[-WINDOW:], self.typical.get(lower, math.nan))

    def jump(self, upper: str, lower: str) -> Gap:
        """What one probe in ten of the second half of the run exceeds: for losses that are bad now and then.

        NaN with fewer than ``CORROBORATION`` probes.
        """
        d = _difference(self.course, upper, lower)
        d = d[~np.isnan(d)]
        if len(d) < CORROBORATION:
            return Gap(math.nan, math.nan, math.nan)
        with np.errstate(invalid="ignore"):
            value = float(np.quantile(d, JUMP_QUANTILE))
        return Gap(value, 0.0, self.harm(value, self.typical.get(lower, math.nan)))

    def judge(self, difference: Array, level: float = math.nan) -> Gap:
        """A gap from paired differences over some probes, [n]; NaN entries are left out.

        Args:
            difference: upper minus lower loss.
            level: the lower loss, for the scale; the batch-mode loss where it is not known.
        """
        d = difference[~np.isnan(difference)]
        if not len(d):
            return Gap(math.nan, math.nan, math.nan)
        with np.errstate(invalid="ignore"):
            value = float(np.median(d))
        if not math.isfinite(value):
            return Gap(value, 0.0, math.inf if value > 0 else 0.0)
        finite = d[np.isfinite(d)]
        # 1.4826 makes the MAD a standard deviation, 1.2533 that of a mean the one of a median (normal values).
        mad = 1.4826 * float(np.median(np.abs(finite - np.median(finite))))
        uncertainty = 1.2533 * mad / math.sqrt(len(finite)) if len(finite) >= 3 else math.nan
        return Gap(value, uncertainty, self.harm(value, level))

    def harm(self, value: float, level: float = math.nan) -> float:
        """A loss difference against the scale of the loss it is added to, 0 for an improvement."""
        if not value > 0:
            return 0.0
        scale = self.scale_of(level) if math.isfinite(level) else self.scale
        harm = value / scale if scale > 0 else math.inf
        return max(harm, value / self.progress) if self.progress > 0 else harm

    def scale_of(self, level: float) -> float:
        """Difference of harm 1 over a loss of this level; see ``measure``."""
        if math.isnan(self.unit) and not self.natural_zero:
            return max(self.progress, self.spread)
        size = abs(level) if math.isnan(self.unit) else self.unit
        geometric = math.sqrt(GEOMETRIC_SHARE * size * self.progress)
        # Means over many batches have standard errors of their own; single probes do not.
        spread = self.spread if math.isnan(self.unit) else 0.0
        return max(size, geometric, FLOOR_SHARE * self.progress, spread)

    @property
    def scale(self) -> float:
        """Difference of harm 1 over the batch-mode loss."""
        return self.scale_of(self.typical.get("batch", 0.0)) if self.step is not None else 0.0

    @property
    def replayed(self) -> dict[float, float]:
        """Momentum -> last inference loss, had the momentum been this; only what was measured in the window."""
        values = {m: self.now.get(replay_row(m), math.nan) for m in REPLAY_MOMENTUMS}
        return {m: v for m, v in values.items() if not math.isnan(v)}


def _difference(columns: Mapping[str, Array], upper: str, lower: str) -> Array:
    if upper not in columns or lower not in columns:
        return np.empty(0)
    with np.errstate(invalid="ignore"):
        return np.asarray(columns[upper] - columns[lower])


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


def _diverged(columns: Mapping[str, Array], not_evaluated: Mapping[str, str]) -> bool:
    """Whether the loss in training mode is no longer finite. NaN also stands for "not measured"."""
    fit, batch = columns["fit_loss"], columns["batch"]
    if not len(fit):
        return False
    if any(np.isinf(columns[kind][-1]) for kind in ("training", "batch", "fit_loss")):
        return True
    # The last probe of a run follows the last step, so it has no fit_loss. Where no other loss is measured, it takes
    # two probes without a fit_loss to conclude that the loss is NaN.
    known = "losses" not in not_evaluated
    lost = np.isnan(fit[-1]) and np.isnan(batch[-1]) if known else len(fit) > 1 and np.isnan(fit[-2:]).all()
    return bool(lost and np.isfinite(fit).any())


def _spread(values: Array) -> float:
    """Robust standard deviation from probe to probe, from successive differences so that a trend adds nothing."""
    d = np.diff(values[np.isfinite(values)])
    return 1.4826 * float(np.median(np.abs(d))) / math.sqrt(2.0) if len(d) >= 2 else 0.0


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
    batch = columns["batch"]
    measured = np.flatnonzero(np.isfinite(batch) | np.isfinite(columns["training"]) | ~np.isnan(columns["inference"]))
    if not len(measured):
        return Losses(
            diverged=_diverged(columns, history.manifest.not_evaluated), not_evaluated=history.manifest.not_evaluated
        )
    last = int(measured[-1])
    columns["inference"] = _with_overflow(history, columns, last)
    recent = measured[-WINDOW:]
    recent = recent[history.loss_steps[recent] >= (1.0 - WINDOW_SHARE) * history.loss_steps[last]]
    window = {name: column[recent] for name, column in columns.items()}
    known = {name: v[~np.isnan(v)] for name, v in window.items() if not np.isnan(v).all()}
    typical = {name: float(np.median(v)) for name, v in known.items()}
    # Replays and forecasts are measured at every other probe, so the last known of the window stands for now.
    now = {name: float(v[-1]) for name, v in known.items()}
    now |= {kind: float(columns[kind][last]) for kind in LOSS_KINDS if not np.isnan(columns[kind][last])}
    settled = history.loss_steps >= SPREAD_SHARE * history.loss_steps[last]
    settled[last + 1 :] = False

    forecast, forecast_limit = _forecast(window)
    level = typical.get("batch", math.nan)
    spread = _spread(batch[settled & np.isfinite(batch)])
    unit = math.nan if evidence is None else yardstick.unit(evidence)
    progress = _progress(batch[np.isfinite(batch)], level, spread, abs(level) if math.isnan(unit) else unit)
    natural_zero = _natural_zero(columns)
    if evidence is not None and math.isfinite(unit):
        natural_zero = yardstick.from_zero(evidence)
    if math.isfinite(unit):
        floor = max(unit, FLOOR_SHARE * progress)
    else:
        floor = max(abs(level), FLOOR_SHARE * progress, spread) if natural_zero else max(progress, spread)
    return Losses(
        step=int(history.loss_steps[last]),
        now=now,
        typical=typical,
        window=window,
        tail={name: column[measured[-WINDOW:]] for name, column in columns.items()},
        course={name: column[settled] for name, column in columns.items()},
        steps=history.loss_steps[settled].astype(np.float64),
        forecast=forecast,
        forecast_limit=forecast_limit,
        level=floor,
        progress=progress,
        spread=spread,
        natural_zero=natural_zero,
        unit=unit,
        diverged=_diverged(columns, history.manifest.not_evaluated),
        not_evaluated=history.manifest.not_evaluated,
    )


def _columns(history: History, probe: str) -> dict[str, Array]:
    names = [*LOSS_KINDS, *(replay_row(m) for m in REPLAY_MOMENTUMS), "fit_loss", "learning_rate", "batch_size"]
    names += [f"forecast{s}_{i}" for i in range(FORECAST_POINTS) for s in ("", "_step")]
    names += ["short_updates", "long_updates", "recalibrated_now"]
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


def _natural_zero(columns: Mapping[str, Array]) -> bool:
    """Whether no loss is negative, so that zero means something."""
    values = np.concatenate([columns[kind] for kind in ("batch", "inference", "recalibrated", "training")])
    return bool(np.min(values[np.isfinite(values)], initial=0.0) >= 0.0)


def _progress(batch: Array, level: float, spread: float, unit: float) -> float:
    """What the loss fell since the first probes, 0 where that is not clear."""
    progress = float(batch[:3].max() - level) if len(batch) > 3 and math.isfinite(level) else 0.0
    return progress if progress > max(3.0 * spread, LEAST_FALL * unit) else 0.0
