"""What batches hold: how rows are put together, and which rows set the statistics; read from one measurement."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.drift import FALSE_ALARM_Z
from tb_bnlens.analysis.loss_gap import NOTE_HARM, Gap, Losses
from tb_bnlens.analysis.measured import UNKNOWN, Measured
from tb_bnlens.analysis.regrouped import FALSE_ALARMS, ORDERED, chance_of_neighbours, chance_of_ratio
from tb_bnlens.analysis.rival import company_tells, of_company, served_apart, standard_error
from tb_bnlens.analysis.yardstick import EASIEST
from tb_bnlens.metadata import REPLAY_ROWS

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

FIXED = ("inference", "recalibrated", "recalibrated_all", "with_dropout", "robust", "counted", "ordinary", *REPLAY_ROWS)
"""Passes that normalize every batch with the same statistics."""
MINORITY = 2.0
"""Where the mean of the batches' variances is twice their median, a minority of the batches makes up half of it."""
SMALLER_PART = 0.5
"""A part of a difference below which another part is the larger one."""
FEWEST_ROWS = 8.0
"""Batches of fewer rows say nothing of dominance: behind a few layers with ReLU the mean variance of pairs is 6 to 20
times their median in a network without any extreme row."""
UNMET = 0.05
"""Chance at which a kind of batches that none of the measured ones is of would have been met."""


class Composition:
    """Figures about what batches hold. Differences are in loss units; one that was not measured is unknown.

    Args:
        measured: the measurement on many batches.
        losses: the scale against which a difference is judged.
        start: loss with batch statistics when the record began; NaN where it is not known.
    """

    def __init__(self, measured: Measured, losses: Losses, start: float = math.nan):
        self._measured, self._losses, self.start = measured, losses, start
        self._evidence = measured.evidence

    # --- layers that do not use their moving statistics ---

    @property
    def by_batch_at_inference(self) -> Mask:
        """Layers that normalize by the batch when the model is called in inference mode, [L]."""
        return np.asarray(self._row("batch_at_inference") == 1.0)

    @cached_property
    def alone(self) -> Gap:
        """What inference loses on single rows."""
        return self._measured.gap("one_at_a_time", "inference")

    # --- batches that differ ---

    @cached_property
    def losses_over_random(self) -> float:
        """Variance of the batches' losses over that of new compositions of the same rows; NaN where not measured."""
        own, mixed = (self._losses_of(name) for name in (self._measured.trained, "recombined"))
        if len(own) != len(mixed) or len(own) < 3:
            return math.nan
        with np.errstate(all="ignore"):
            return float(np.var(own) / np.var(mixed))

    @cached_property
    def losses_unlike(self) -> bool:
        """Whether the batches' losses differ by more than those of rows drawn at random; one such run in 1,000 does.

        A batch may differ from others by itself and come in random order: a share of mixup is drawn for each batch, and
        a sampler of triplets draws its kinds. So either neighbours in time have to differ little, or normalizing by
        the batch has to make more of it than fixed statistics do.
        """
        own, mixed = (self._losses_of(name) for name in (self._measured.trained, "recombined"))
        if len(own) != len(mixed) or chance_of_ratio(own, mixed) > FALSE_ALARMS:
            return False
        fixed, fixed_mixed = (self._losses_of(name) for name in ("inference", "recombined_inference"))
        if not len(own) == len(fixed) == len(fixed_mixed) or not np.isfinite([*fixed, *fixed_mixed]).all():
            return True
        by_batch = chance_of_ratio(own - fixed, mixed - fixed_mixed) <= FALSE_ALARMS
        in_order = own[np.argsort(self._evidence.batch_steps, kind="stable")]
        return by_batch or chance_of_neighbours(in_order) <= ORDERED

    @cached_property
    def of_one_kind(self) -> bool:
        """Whether the rows of a batch have much the same target; see ``rival.company_tells``."""
        return company_tells(self._evidence)

    @cached_property
    def served_apart(self) -> bool:
        """Whether inference serves some of the batches, and no new ones of the same rows; see ``rival``."""
        return served_apart(self._evidence)

    @cached_property
    def fixed_over_random(self) -> float:
        """As ``losses_over_random``, with the moving statistics."""
        own, mixed = (self._losses_of(name) for name in ("inference", "recombined_inference"))
        with np.errstate(all="ignore"):
            return float(np.var(own) / np.var(mixed)) if len(own) == len(mixed) else math.nan

    @property
    def differ(self) -> bool:
        """Whether the batches are not draws of one kind, by their statistics, their losses or their targets."""
        by_statistics = self._measured.unlike.any() or self.unlike_variances.any()
        return bool(by_statistics) or self.losses_unlike or self.served_apart or self.of_one_kind

    @property
    def losses_comparable(self) -> bool:
        """Whether there are batches enough to tell at that chance: so few have fewer regroupings."""
        own = len(self._losses_of("recombined"))
        return math.comb(2 * own, own) * FALSE_ALARMS >= 1.0

    @cached_property
    def compares_rows(self) -> bool:
        """Whether the loss compares the rows of a batch (triplets, contrasts, graphs), so that its company is meant."""
        return self._judged(abs(of_company(self._evidence)), 0.0).at_least(NOTE_HARM)

    @cached_property
    def uneven(self) -> Gap:
        """Standard deviation of the batches' losses beyond that of rows drawn at random: some are served far worse."""
        if not self.losses_unlike:
            return UNKNOWN
        own, mixed = (self._losses_of(name) for name in (self._measured.trained, "recombined"))
        return self._judged(math.sqrt(max(float(np.var(own) - np.var(mixed)), 0.0)), 0.0)

    @cached_property
    def hampered(self) -> Gap:
        """What batch statistics lose on the batches as they are, against the same rows mixed.

        A network adapts to the batches that it is trained on. Where it does better on others, normalizing removes what
        tells the batches apart. What the loss on fixed statistics makes of the other company is no matter of batches.
        """
        m = self._measured
        if not m.has("recombined_inference") or not of_company(self._evidence):
            return m.gap(m.trained, "recombined")
        return m.part((m.trained, "recombined"), ("recombined_inference", "inference"))

    @cached_property
    def in_some(self) -> Gap:
        """Inference minus its rival, beside its standard error over rows.

        Where batches are unlike, what lies in a few of them is a matter of those batches and no chance. It need not
        stand out from the spread of all batches.
        """
        m = self._measured
        error = m.error_of_rows("inference", m.rival)
        return replace(m.over_rival, uncertainty=error) if self.differ and not math.isnan(error) else UNKNOWN

    @cached_property
    def carriers(self) -> int:
        """The fewest batches that make up half of that difference; 0 where it was not measured."""
        own, inference = (self._losses_of(name) for name in (self._measured.rival, "inference"))
        if len(own) != len(inference) or not len(own):
            return 0
        apart = np.sort(np.maximum(inference - own, 0.0))[::-1]
        return int(np.searchsorted(np.cumsum(apart), 0.5 * apart.sum())) + 1

    @property
    def rarest_met(self) -> float:
        """The share of all batches from which a kind is among the measured ones, at odds of 19 to 1."""
        return float(1.0 - UNMET ** (1.0 / self._measured.batches))

    def left(self, name: str) -> float:
        """What a pass leaves of the loss at the start, or with the targets of other rows if that is less; or NaN.

        Both are taken above the easiest rows' loss.
        """
        # Random outputs do worse than knowing nothing, and how much worse is luck.
        start = np.fmin(self.start, self._measured.mean("mismatched"))
        fallen = float(start - self._easiest(name))
        return self._level(name) / fallen if fallen > 0.0 else math.nan

    @property
    def changed(self) -> bool:
        """Whether the data changed in the course of training, so that batches since then alone are measured."""
        return bool(self._evidence.earlier)

    @property
    def steps_since(self) -> int:
        """Steps from the first measured batch on, where the data changed."""
        return max(int(self._evidence.step - self._evidence.batch_steps[0] + 1), 1)

    @cached_property
    def on_past(self) -> Gap:
        """Inference minus batch statistics on batches from before the data changed; unknown where they did not."""
        inference, own = (self._evidence.earlier.get(name) for name in ("inference", "batch"))
        if inference is None or own is None or len(inference.losses) != len(own.losses):
            return UNKNOWN
        return self._judged(inference.mean - own.mean, standard_error(inference.losses - own.losses, own.sizes))

    @cached_property
    def of_targets(self) -> Gap:
        """What the targets of other rows lose against a row's own; unknown where the loss takes no targets.

        A network that knows nothing of its data loses nothing, whatever the loss of knowing nothing is.
        """
        own, other = (self._losses_of(name) for name in (self._measured.trained, "mismatched"))
        if np.isclose(other[:, None], own).any(1).all():
            return UNKNOWN
        return self._measured.part(("mismatched", self._measured.trained))

    def left_of_nothing_known(self, name: str) -> float:
        """Share of the loss of knowing nothing that a pass leaves, both above its easiest rows'; NaN if not known."""
        return self._level(name) / (self._measured.mean("mismatched") - self._easiest(name))

    @cached_property
    def on_last(self) -> Gap:
        """Inference minus its rival on batches of the last fit; unknown where all are of one fit."""
        phases = self._evidence.batch_phases
        return self._on(phases == phases.max()) if len(np.unique(phases)) > 1 else UNKNOWN

    @cached_property
    def on_earlier(self) -> Gap:
        """The same on batches of earlier fits."""
        phases = self._evidence.batch_phases
        return self._on(phases < phases.max()) if len(np.unique(phases)) > 1 else UNKNOWN

    @cached_property
    def last_is_served_best(self) -> bool:
        """Whether inference on batches of earlier fits is clearly worse than on those of the last."""
        error = math.hypot(*(g.uncertainty if g.uncertainty >= 0 else 0.0 for g in (self.on_last, self.on_earlier)))
        return self._judged(self.on_earlier.value - self.on_last.value, error).significant

    def _on(self, batches: Mask) -> Gap:
        own, inference = (self._measured.passes.get(x) for x in (self._measured.trained, "inference"))
        if own is None or inference is None or len(batches) != len(own.losses):
            return UNKNOWN
        apart, sizes = (inference.losses - own.losses)[batches], own.sizes[batches]
        return self._judged(float(np.average(apart, weights=sizes)), standard_error(apart, sizes))

    @property
    def rows(self) -> float:
        """Rows of a batch, the harmonic mean."""
        return 1.0 / float(np.mean(1.0 / self._evidence.batch_sizes))

    # --- rows that set the statistics ---

    @cached_property
    def dominance_limit(self) -> float:
        """Mean over median of the batches' variances, from which a minority of batches sets the mean.

        For batches of n independent normal rows the variance is chi-squared with n - 1 degrees of freedom, whose mean
        lies above its median, and both scatter with the number of batches. Batches of fewer rows have skewed variances
        whatever their rows are, so there is no limit for them.
        """
        if self.rows < FEWEST_ROWS:
            return math.inf
        freedom = self.rows - 1.0
        of_normal = (1.0 - 2.0 / (9.0 * freedom)) ** -3  # Wilson and Hilferty (1931)
        # 1.25 makes the standard error of a mean that of a median; the two errors add up at most.
        scatter = (1.0 + 1.25) * math.sqrt(2.0 / (freedom * self._measured.batches))
        return MINORITY * of_normal * (1.0 + FALSE_ALARM_Z * scatter)

    @cached_property
    def unlike_variances(self) -> Mask:
        """Layers whose mean variance whole batches of another kind set, [L]: the same rows mixed set it no more."""
        limit = self.dominance_limit
        return np.asarray((self._row("dominance_max") > limit) & (self._row("dominance_mixed") <= limit))

    @cached_property
    def dominated(self) -> Mask:
        """Layers with a channel whose mean variance a minority of the batches sets, or that extreme rows move, [L]."""
        by_rows = (self._row("dominance_max") > self.dominance_limit) & ~self.unlike_variances
        return np.asarray(by_rows | (self._row("ordinary_distance_rms") > self._row("reference_noise")))

    @property
    def extreme_share(self) -> float:
        """Share of rows whose inputs lie far outside of the others'; NaN where inputs were not compared."""
        return robust.largest(self._row("extreme_share"))

    @property
    def left_out(self) -> float:
        """The same where statistics without those rows were measured, else NaN: there are none, or too many."""
        return self.extreme_share if self._measured.has("ordinary") else math.nan

    @cached_property
    def without_few(self) -> str:
        """The pass on statistics without the few extreme rows, or else batches, that does better on an ordinary row."""
        names = [name for name in ("ordinary", "robust") if self._of_rows(f"inference-{name}").known]
        return max(names, key=lambda name: self._of_rows(f"inference-{name}").value) if names else "robust"

    @cached_property
    def ordinary(self) -> Gap:
        """What statistics of ordinary rows or batches take away on an ordinary row: medians over rows."""
        return self._of_rows(f"inference-{self.without_few}")

    @cached_property
    def on_average(self) -> Gap:
        """What the statistics of ordinary rows take away in the mean, where most of what inference loses is that.

        A network that predicts one class for all rows does no worse on the median row where half are of that class.
        The extreme rows may suffer, so that a mean tells less than a median does.
        """
        m = self._measured
        if not math.isfinite(self.left_out):
            return UNKNOWN
        ordinary, stale = m.undone("ordinary"), m.undone("recalibrated")
        most = m.share(ordinary) >= SMALLER_PART and not stale.value > SMALLER_PART * ordinary.value
        return ordinary if most else UNKNOWN

    @cached_property
    def ordinary_stale(self) -> Gap:
        """What the mean of all batches' statistics takes away on an ordinary row."""
        return self._of_rows("inference-recalibrated")

    @cached_property
    def uncounted(self) -> Gap:
        """What statistics of the rows that count take away from inference."""
        return self._measured.undone("counted")

    @cached_property
    def uncounted_beside_stale(self) -> Gap:
        """What they take away beyond statistics of all rows."""
        return self._measured.gap("recalibrated", "counted")

    @property
    def moved_by_uncounted(self) -> Mask:
        """Layers whose statistics the rows of weight 0 move by more than the statistics' own standard error, [L]."""
        return np.asarray(self._row("counted_distance_rms") > self._row("reference_noise"))

    # --- one mean for several calls ---

    @cached_property
    def of_calls(self) -> Gap:
        """What batch statistics lose where all calls of a layer get the mean of the calls' statistics."""
        return self._measured.gap("calls_averaged", self._measured.trained)

    # --- batches that are learned by heart ---

    @cached_property
    def apparent(self) -> Gap:
        """Inference minus the loss on the very batches that training has met, against the level of the latter."""
        return self._against("inference", self._measured.trained)

    @cached_property
    def by_heart(self) -> Gap:
        """What batch statistics lose on new compositions of the same rows."""
        return self._measured.gap("recombined", self._measured.trained)

    # --- noise of small batches ---

    @cached_property
    def best_fixed(self) -> str:
        """The pass with fixed statistics that does best."""
        known = {name: self._measured.cost(name) for name in FIXED if self._measured.has(name)}
        return min(known, key=lambda name: known[name])

    @cached_property
    def noise(self) -> Gap:
        """What no fixed statistics take away: the best of them minus the rival of inference."""
        return self._measured.gap(self.best_fixed, self._measured.rival)

    @cached_property
    def pooled(self) -> Gap:
        """What batch statistics of larger batches take away from the loss of training.

        Unknown where the loss compares rows: it is another loss on more of them.
        """
        return UNKNOWN if self.compares_rows else self._measured.gap(self._measured.trained, "pooled")

    @cached_property
    def of_training(self) -> Gap:
        """What fixed statistics take away from the loss of training, against the level of inference."""
        return self._against(self._measured.trained, "inference")

    @property
    def batch_scatter(self) -> Array:
        """Standard deviation of a single batch's mean in standard deviations of a row, [L]."""
        return self._row("noise_mean")

    # --- short hands ---

    def _row(self, name: str) -> Array:
        found = self._measured.row(name)
        layers = max((len(row) for row in self._evidence.layers.values()), default=0)
        return found if len(found) else np.full(layers, np.nan)

    def _losses_of(self, name: str) -> Array:
        found = self._measured.passes.get(name)
        return np.empty(0) if found is None else found.losses

    def _judged(self, value: float, error: float) -> Gap:
        return Gap(value, error, self._losses.harm(value))

    def _against(self, upper: str, lower: str) -> Gap:
        """A difference against the level of its lower pass instead of that which inference is held against."""
        gap = self._measured.part((upper, lower))
        return replace(gap, harm=self._over(self._level(lower)).harm(gap.value))

    def _over(self, level: float) -> Losses:
        """The scale of losses over this level; that of the run where it is not known to be above the easiest rows."""
        return replace(self._losses, unit=level) if level > 0.0 else self._losses

    def _level(self, name: str) -> float:
        """Mean loss of a pass above that of its easiest rows, as ``yardstick.unit``; these may be of another pass."""
        return self._measured.mean(name) - self._easiest(name)

    def _easiest(self, name: str) -> float:
        rows = self._evidence.samples
        return rows.get(name, rows.get(self._measured.trained, {})).get(EASIEST, math.nan)

    def _of_rows(self, name: str) -> Gap:
        """The median of paired differences of single rows, with its standard error."""
        rows = self._evidence.samples.get(name, {})
        count, median = rows.get("count", 0.0), rows.get("median", math.nan)
        if not count or not math.isfinite(median):
            return UNKNOWN
        # The standard deviation from two quantiles, which lie 2.56 of them apart; 1.25 is for a median.
        deviation = (rows.get("q90", math.nan) - rows.get("q10", math.nan)) / 2.563
        # As the mean difference is held against the mean loss: the median row's, above the easiest rows.
        typical = self._evidence.samples.get(self._measured.trained, {})
        level = typical.get("median", math.nan) - typical.get(EASIEST, math.nan)
        return Gap(median, 1.2533 * deviation / math.sqrt(count), self._over(level).harm(median))
