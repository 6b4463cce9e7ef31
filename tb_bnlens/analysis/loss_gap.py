"""The loss gap and its parts: losses of one batch at one set of weights under several normalizations.

``training - batch`` is dropout and other training-only layers, ``inference - recalibrated`` stale statistics,
``recalibrated - batch`` batch noise, ``inference - batch`` BatchNorm in all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.metadata import REPLAY_MOMENTUMS, replay_row

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

WINDOW = 5
"""Last probes that are judged together; a median of five survives two odd batches."""
CORROBORATION = 3
"""Probes of cheap steps are few and far between. With fewer than this many in the window, the last this many of any age
tell how sure a gap is: their median has to show it too, and their spread is what one batch scatters by."""
BEYOND_DOUBT = 10.0
"""Harm that a probe or two tell: losses of single batches differ by some factor, and not by that of ten more losses."""
JUMP_QUANTILE = 0.9
"""A jump is what one probe in ten exceeds."""
STANDARD_ERRORS = 2.0
"""A part is real when its median over the window is more than this many standard errors above zero."""
GEOMETRIC_SHARE = 1e-3
FLOOR_SHARE = 1e-4
"""A loss near zero makes any ratio large. What the loss fell since the start tells how small is small: a gap is
measured against the geometric mean of the loss and a thousandth of that fall, and never against less than a
ten-thousandth of it."""
CLASS_SHARE = 0.04
"""...nor against less than this share of the fall where targets are classes. A row is surely right while its loss is
below the log of 2, so half a unit of that scale, a warning, leaves room for some 2% of wrong rows, as
``metrics.DROP`` does."""
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
    tentative: bool = False
    """It rests on fewer than ``CORROBORATION`` probes, or on old ones, and is below ``BEYOND_DOUBT``: that is not sure
    enough for an error."""
    seen: float = math.inf
    """Harm that the probes before show as well, each at the loss that it had: what rests on fewer than
    ``CORROBORATION`` probes counts for no more, unless it is beyond doubt."""
    drop: float = math.nan
    """What a metric loses beyond chance, 0 for nothing, where the metric shows a fault that the loss does not; else
    NaN. ``harm`` is that of the drop then."""

    @property
    def size(self) -> float:
        """What shares are taken of: the drop where the metric tells, else the difference of losses."""
        return self.value if math.isnan(self.drop) else self.drop

    @property
    def known(self) -> bool:
        """Whether both losses were measured."""
        return not math.isnan(self.value)

    @property
    def significant(self) -> bool:
        """Whether it stands out from the spread between probes."""
        if not math.isnan(self.drop):
            return self.known and self.drop > 0.0
        noise = self.uncertainty if self.uncertainty >= 0 else 0.0
        return self.known and self.corroborated and self.value > STANDARD_ERRORS * noise

    def at_least(self, harm: float) -> bool:
        """Whether it is significant and does at least this much harm, as far as the probes before it agree."""
        return self.significant and min(self.harm, self.seen) >= harm


@dataclass(frozen=True)
class Losses:
    """What the last probes say, and the scale that gaps are judged by. Without a probe, ``columns`` is empty."""

    columns: Mapping[str, Array] = field(default_factory=dict)
    """Kind -> value of every probe, oldest first; NaN where not measured."""
    steps: Array = field(default_factory=lambda: np.empty(0))
    """Step of every probe."""
    measured: Indices = field(default_factory=lambda: np.empty(0, np.int64))
    """Probes that measured a loss."""
    judged: Indices = field(default_factory=lambda: np.empty(0, np.int64))
    """The last of these, at most ``WINDOW``, that are judged together."""
    settled: Indices = field(default_factory=lambda: np.empty(0, np.int64))
    """Probes of the second half of the run, up to the last that measured a loss."""
    forecast: tuple[tuple[float, float], ...] = ()
    """(updates ahead, inference loss) of the last probe that looked ahead, (0, its inference loss) first."""
    forecast_limit: float = math.nan
    """The recalibrated loss of that probe, which the forecast tends to."""
    progress: float = 0.0
    """What the loss fell since the start; 0 where that is not clear."""
    probe_noise: float = 0.0
    """Standard deviation of the loss with batch statistics from probe to probe."""
    natural_zero: bool = True
    target_entropy: float = 0.0
    """Of the shares of the classes, in nats; 0 where targets are none, or nothing tells."""
    unlearned: float = 0.0
    """What the loss would rise by on the targets of other rows; 0 where that was not measured."""
    unit: float = math.nan
    """``yardstick.unit``; NaN without a measurement on many batches."""
    old: bool = False
    """Training went on for long after the last probe, so its losses are those of another network."""
    diverged: bool = False
    """The losses themselves are no longer finite, in training mode too."""
    not_evaluated: Mapping[str, str] = field(default_factory=dict)

    @property
    def step(self) -> int | None:
        """Of the last probe that measured a loss."""
        return int(self.steps[self.measured[-1]]) if len(self.measured) else None

    @property
    def tentative(self) -> bool:
        """Whether the window holds fewer than ``CORROBORATION`` probes, or old ones."""
        return self.old or len(self.judged) < CORROBORATION

    @cached_property
    def window(self) -> Mapping[str, Array]:
        """Kind -> values of the probes that are judged together, [<= WINDOW]."""
        return {kind: column[self.judged] for kind, column in self.columns.items()}

    @cached_property
    def tail(self) -> Mapping[str, Array]:
        """The same of the last ``WINDOW`` probes of any age."""
        return {kind: column[self.measured[-WINDOW:]] for kind, column in self.columns.items()}

    @cached_property
    def course(self) -> Mapping[str, Array]:
        """The same of the second half of the run, the window included."""
        return {kind: column[self.settled] for kind, column in self.columns.items()}

    @cached_property
    def typical(self) -> Mapping[str, float]:
        """Kind -> median over the window; only what was measured there."""
        return {kind: float(np.median(values)) for kind, values in self._known.items()}

    @cached_property
    def now(self) -> Mapping[str, float]:
        """Kind -> last known value of the window: replays and forecasts are measured at every other probe."""
        return {kind: float(values[-1]) for kind, values in self._known.items()}

    @cached_property
    def _known(self) -> Mapping[str, Array]:
        known = {kind: values[~np.isnan(values)] for kind, values in self.window.items()}
        return {kind: values for kind, values in known.items() if len(values)}

    @property
    def evaluated(self) -> bool:
        """Whether inference and batch-mode losses were measured."""
        return self.step is not None and self.gap("inference", "batch").known

    def gap(self, upper: str, lower: str) -> Gap:
        """The gap between two kinds, paired probe by probe."""
        here, level = _difference(self.window, upper, lower), self.typical.get(lower, math.nan)
        gap, count = self.judge_window(here, level), int(np.sum(~np.isnan(here)))
        if not count or count >= CORROBORATION or math.isinf(gap.value):
            return gap
        difference, levels = (x[-CORROBORATION:] for x in (_difference(self.tail, upper, lower), self.tail[lower]))
        known = np.isfinite(difference)
        last = difference[known]
        if len(last) < CORROBORATION:
            return gap
        agreed = self.harm(float(np.median(last)), level) >= NOTE_HARM
        # A loss that has fallen since makes the same difference a greater harm: each probe goes by its own.
        own = [self.harm(d, at) for d, at in zip(last, levels[known], strict=True)]
        if gap.harm >= BEYOND_DOUBT and min(own) >= NOTE_HARM:
            # Each probe shows it: what their differences spread by is growth, not chance.
            return replace(gap, uncertainty=math.nan)
        spread = float(np.std(last, ddof=1)) / math.sqrt(count)
        seen = float(np.median(own)) if gap.tentative else math.inf
        return replace(gap, uncertainty=spread, corroborated=agreed, seen=seen)

    def judge_window(self, difference: Array, level: float = math.nan) -> Gap:
        """As ``judge``, of the probes of the window."""
        gap = self.judge(difference, level)
        # A statistic that is not finite stays so: it needs no second probe.
        doubtful = gap.known and not math.isinf(gap.value) and not gap.harm >= BEYOND_DOUBT
        return replace(gap, tentative=self.tentative and doubtful)

    @property
    def windows_serve(self) -> bool:
        """Whether the statistics of the last batches serve about as well as the moving ones at the last probe.

        A probe takes them from windows of past weights. Where these are worse than the moving average, what they
        leave is neither its age nor batch noise.
        """
        worse = self.now.get("recalibrated", math.nan) - self.now.get("inference", math.nan)
        return not self.harm(worse, self.typical.get("batch", math.nan)) >= NOTE_HARM

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
        """Difference of harm 1 over a loss of this level; see ``last_probes.measure``."""
        if math.isnan(self.unit) and not self.natural_zero:
            return max(self.progress, self.probe_noise)
        size = abs(level) if math.isnan(self.unit) else self.unit
        geometric = math.sqrt(GEOMETRIC_SHARE * size * self.progress)
        # Means over many batches have standard errors of their own; single probes do not.
        noise = self.probe_noise if math.isnan(self.unit) else 0.0
        # Random weights know less than the classes' shares, which are most of what rare classes have to learn.
        fall = min(self.progress or self.unlearned, self.target_entropy)
        return max(size, geometric, FLOOR_SHARE * self.progress, CLASS_SHARE * fall, noise)

    @property
    def scale(self) -> float:
        """Difference of harm 1 over the batch-mode loss."""
        return self.scale_of(self.typical.get("batch", 0.0)) if self.step is not None else 0.0

    def least(self, harm: float, level: float = math.nan) -> float:
        """The difference that does so much harm: what ``harm`` inverts."""
        scale = self.scale_of(level) if math.isfinite(level) else self.scale
        return harm * (min(scale, self.progress) if self.progress > 0 else scale)

    @property
    def level(self) -> float:
        """The loss itself, for "within tolerance of it"; as ``scale`` where it has no natural zero."""
        floor = FLOOR_SHARE * self.progress
        if math.isfinite(self.unit):
            return max(self.unit, floor)
        if not self.natural_zero:
            return max(self.progress, self.probe_noise)
        return max(abs(self.typical.get("batch", math.nan)), floor, self.probe_noise)

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
