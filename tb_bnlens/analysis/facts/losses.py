"""The losses of a run and their differences, on training and on validation data."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis import metrics, robust, yardstick
from tb_bnlens.analysis.facts.record import RecordFacts
from tb_bnlens.analysis.loss_gap import WARNING_HARM, WINDOW, Gap
from tb_bnlens.analysis.measured import UNKNOWN, Measured
from tb_bnlens.analysis.rival import spread_of_mean

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

PASS_OF_KIND = {"recalibrated_now": "recalibrated"}
"""Loss kind of a probe -> the pass on many batches that measures the same, where their names differ."""
PROBES_ONLY = ("recalibrated_long", "updated")
"""Loss kinds that no pass on many batches measures."""
LEAST_UNDONE = 0.05
"""Share of the steps from which on it is told which step inference is as good as: the last probes lie side by side."""


class LossFacts(RecordFacts):
    """Losses, in loss units."""

    @cached_property
    def gap(self) -> Gap:
        """Inference minus batch statistics (``Measured.rival``): all that BatchNorm costs at inference.

        Without layers to put in batch mode it is inference minus training mode. Dropout and its like make training
        worse, so where inference is worse something else in the model depends on the mode.
        """
        if not self.has_layers:
            if self.measured is not None and self.measured.has("training"):
                return self.measured.gap("inference", "training")
            return self.losses.lasting_gap("inference", "training")
        return self.losses.gap("inference", "batch") if self.measured is None else self.measured.over_rival

    @cached_property
    def last_finite(self) -> tuple[int, float] | None:
        """Step and value of the last finite loss in training mode, None where there is none."""
        loss = self.history.loss("training").astype(np.float64)
        at = np.flatnonzero(np.isfinite(loss))
        return (int(self.history.loss_steps[at[-1]]), float(loss[at[-1]])) if len(at) else None

    @cached_property
    def first_not_finite(self) -> int | None:
        """Step of the first probe after that, None where training has not diverged."""
        if not self.losses.diverged:
            return None
        at = self.last_finite
        return next((int(s) for s in self.history.loss_steps if at is None or s > at[0]), None)

    @cached_property
    def grew(self) -> bool:
        """Whether the last finite loss in training mode is above those before it, those in the mean of fit included."""
        if self.last_finite is None:
            return False
        training, fit = (self.history.loss(kind).astype(np.float64) for kind in ("training", "fit_loss"))
        before = self.history.loss_steps < self.last_finite[0]
        earlier = np.append(training[before], fit[self.history.loss_steps <= self.last_finite[0]])
        return bool(self.last_finite[1] > np.max(earlier[np.isfinite(earlier)], initial=-np.inf)) and len(earlier) > 0

    @property
    def evaluated(self) -> bool:
        """Whether inference and its rival were measured."""
        return self.losses.evaluated or self.gap.known

    @cached_property
    def stale(self) -> Gap:
        """Inference minus recalibrated: what newer statistics take away."""
        return self.undone("recalibrated")

    @cached_property
    def as_at_step(self) -> int | None:
        """The step that parts the probes whose loss with batch statistics is above the inference loss from those below.

        Training in batch mode was as good then as inference is now; no offset, scale or other monotone change of the
        loss moves it. Single probes scatter, so it is the step with the fewest probes on the wrong side. None where
        less than ``LEAST_UNDONE`` is undone, where inference is worse than any probe before, and without a measurement
        on many batches.
        """
        if self.measured is None or not self.gap.significant or self.measured.lost:
            return None
        batch = self.history.loss("batch").astype(np.float64)
        known = np.isfinite(batch)
        above, steps = batch[known] > self.typical("inference"), self.history.loss_steps[known]
        wrong = np.concatenate([[0], np.cumsum(~above)]) + np.concatenate([np.cumsum(above[::-1])[::-1], [0]])
        parted = int(np.argmin(wrong))
        late = parted == len(steps) or steps[parted] > (1 - LEAST_UNDONE) * self.last_step
        return int(steps[parted]) if parted and not late else None

    @property
    def share_undone(self) -> float:
        """Share of the steps that inference undoes; NaN where that is not known."""
        step = self.as_at_step
        return math.nan if step is None or not self.last_step else max(1.0 - step / self.last_step, 0.0)

    @cached_property
    def measured_validation(self) -> Measured | None:
        """What the passes on many batches of validation data say, None where there are none."""
        if self.evidence is None or "inference" not in self.evidence.validation:
            return None
        # Of a typical row above the easiest ones, as for training; the easiest of all data are those of training.
        easiest = self.evidence.samples.get("batch", {}).get(yardstick.EASIEST, math.nan)
        batch = self.evidence.validation.get("batch")
        level = math.nan if batch is None else batch.mean - easiest
        scale = replace(self.losses, unit=float(np.fmax(self.losses.unit, level)))
        return Measured(self.evidence, scale, self.evidence.validation)

    @cached_property
    def validation_gap(self) -> Gap:
        """Inference minus batch statistics on validation data."""
        if self.measured_validation is not None:
            return self.measured_validation.gap("inference", "batch")
        return self.validation.gap("inference", "batch")

    @cached_property
    def renewed_validation_gap(self) -> Gap:
        """The same with recalibrated statistics of training data."""
        there = self.measured_validation
        return (self.validation if there is None else there).gap("recalibrated", "batch")

    @cached_property
    def both_probed(self) -> bool:
        """Whether the gap was measured on training and on validation data."""
        probed = self.validation.step is not None and self.validation.evaluated and self.losses.evaluated
        return probed or (self.validation_gap.known and self.gap.known)

    @cached_property
    def validation_warning_loss(self) -> float:
        """Difference of losses on validation data from which a gap is a warning."""
        there = self.validation if self.measured_validation is None else self.measured_validation
        return there.least(WARNING_HARM)

    def on_validation(self, kind: str) -> float:
        """A loss on validation data: the mean over many batches, else the median over the last probes."""
        if self.measured_validation is not None:
            return self.measured_validation.mean(kind)
        return self.validation.typical.get(kind, math.nan)

    @cached_property
    def validation_excess(self) -> Gap:
        """Inference loss on validation data minus that on training data."""
        return self._excess("inference")

    @cached_property
    def renewed_excess(self) -> Gap:
        """The same with recalibrated statistics: what no statistics of training data take away."""
        return self._excess("recalibrated")

    def _excess(self, kind: str) -> Gap:
        value = self.on_validation(kind) - self.typical(kind)
        if self.measured is None or self.measured_validation is None:
            if self.losses.tentative or self.validation.tentative:
                return UNKNOWN  # a probe or two do not tell how much losses differ between batches
            return Gap(value, self.losses.probe_noise, self.losses.harm(value))
        here, there = (x.passes.get(kind) for x in (self.measured, self.measured_validation))
        if here is None or there is None:
            return UNKNOWN
        errors = [spread_of_mean(x) for x in (here, there)]
        harm = max(self.losses.harm(value), metrics.harm(there, here))
        return Gap(value, math.hypot(*errors), harm)

    def typical(self, kind: str) -> float:
        """Mean of a loss over many batches, else its median over the last probes."""
        found = self._mean(kind)
        return self.losses.typical.get(kind, math.nan) if math.isnan(found) else found

    def now(self, kind: str) -> float:
        """Mean of a loss over many batches, else the loss at the last probe that measured it."""
        found = self._mean(kind)
        return self.losses.now.get(kind, math.nan) if math.isnan(found) else found

    def _mean(self, kind: str) -> float:
        if self.measured is None or kind in PROBES_ONLY:
            return math.nan
        return self.measured.mean(PASS_OF_KIND.get(kind, kind))

    @property
    def rival_loss(self) -> float:
        """The loss that inference is held against."""
        return self.typical("batch") if self.measured is None else self.measured.mean(self.measured.rival)

    @cached_property
    def replayed(self) -> dict[float, float]:
        """Momentum -> inference loss, had the momentum been this."""
        if self.measured is not None and self.measured.replayed:
            return self.measured.replayed
        return self.losses.replayed

    def lasting(self, kind: str) -> float:
        """Median of a loss over the last probes of any age."""
        return robust.median(self.losses.course.get(kind, np.empty(0))[-WINDOW:])

    def undone(self, intervention: str) -> Gap:
        """What an intervention takes away from the inference loss.

        Args:
            intervention: a pass of ``metadata.PASSES`` or ``put_right:GROUP``, or a loss kind of the probes.
        """
        if self.measured is not None and intervention not in PROBES_ONLY:
            return self.measured.undone(PASS_OF_KIND.get(intervention, intervention))
        return self.losses.gap("inference", intervention)

    def share(self, part: Gap) -> float:
        """A part of the loss over the gap, 0 to 1; NaN where either was not measured or there is no gap."""
        if self.measured is not None:
            return self.measured.share(part)
        whole = self.gap.value
        if not whole > 0.0 or not part.known:
            return math.nan
        if math.isinf(whole):
            return 1.0 if math.isinf(part.value) else 0.0
        return min(max(part.value / whole, 0.0), 1.0)

    @cached_property
    def warning_loss(self) -> float:
        """Difference of losses from which a gap is a warning."""
        return self.losses.least(WARNING_HARM)
