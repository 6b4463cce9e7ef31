"""The measurement on many batches, read: paired differences between passes, and what each intervention undoes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis import metrics
from tb_bnlens.analysis.last_probes import WINDOW_SHARE
from tb_bnlens.analysis.loss_gap import STANDARD_ERRORS, Gap, Losses
from tb_bnlens.analysis.rival import (
    ERRORS_APART,
    memorized,
    rival,
    rows_belong,
    similar,
    spread_limit,
    spread_of_mean,
    standard_error,
    unlike,
)
from tb_bnlens.history import Evidence, History, PassResult, trained
from tb_bnlens.metadata import REPLAY_MOMENTUMS, replay_row

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

UNKNOWN = Gap(math.nan, math.nan, math.nan)
"""A gap that was not measured."""
FEW_ROWS_CARRY = 0.5
"""Share of a difference in its top rows (``samples.TOP``) from which it lies in few rows. Losses that fall off
exponentially have a fifth of their sum there."""
MOST = 0.5
"""A cause that takes this share of a gap is the main one, and as grave as the gap is."""
LEAST = 0.25
"""A smaller share of a gap is no separate cause: losses are no sums of their causes, and differences of differences
hold what the causes make together."""
FEWEST_BATCHES = 2
"""Fewer batches have no spread, and tell no more than a probe does."""


def final(history: History) -> Evidence | None:
    """The measurement that a run is judged by: the newest one, unless training went on long after it."""
    if not history.evidence:
        return None
    newest = history.evidence[-1]
    recent = newest.step >= (1.0 - WINDOW_SHARE) * (history.last_step or 0)
    return newest if recent and len(newest.batch_sizes) >= FEWEST_BATCHES else None


class Measured:
    """What the passes of one measurement say.

    Args:
        evidence: the measurement.
        losses: the scale against which a difference is judged.
        passes: other passes than those of the evidence, e.g. ``evidence.validation``.
    """

    def __init__(self, evidence: Evidence, losses: Losses, passes: Mapping[str, PassResult] | None = None):
        self.evidence, self._losses = evidence, losses
        self.passes = evidence.passes if passes is None else passes

    # --- single passes ---

    def has(self, *names: str) -> bool:
        """Whether all of these passes were made."""
        return all(name in self.passes for name in names)

    def mean(self, name: str) -> float:
        """Mean loss of a sample; NaN where the pass was not made, inf where a loss is not finite."""
        if name not in self.passes:
            return math.nan
        mean = self.passes[name].mean
        return mean if math.isfinite(mean) else math.inf

    def least(self, harm: float) -> float:
        """The difference that does so much harm."""
        return self._losses.least(harm)

    @property
    def batches(self) -> int:
        """Batches that were measured."""
        return len(self.evidence.batch_sizes)

    def row(self, name: str) -> Array:
        """A row of ``metadata.EVIDENCE_ROWS``, [L]; empty where it was not measured."""
        return self.evidence.layers.get(name, np.empty(0))

    def group(self, name: str) -> tuple[int, ...]:
        """Layers of a group of ``metadata.GROUPS``; none where there is no such group."""
        return self.evidence.groups.get(name, ())

    # --- differences ---

    @cached_property
    def lost(self) -> str:
        """The compiled metric that inference loses although the loss shows nothing; empty where the loss tells.

        A network that has become less sure and wrong more often may have a lower loss.
        """
        rival = self.rival
        if self.passes is not self.evidence.passes or not self.has("inference", rival):
            return ""
        shows = self._difference(("inference", rival)).significant
        return "" if shows else metrics.lost(self.passes["inference"], self.passes[rival])

    def spoils(self, name: str) -> bool:
        """Whether a metric drops from inference to this pass, whatever the loss does."""
        return self.has(name, "inference") and metrics.harm(self.passes[name], self.passes["inference"]) > 0.0

    def falls(self, name: str) -> list[str]:
        """Metrics that are lower in this pass than at inference, beyond chance."""
        return metrics.fallen(self.passes[name], self.passes["inference"])

    def told_by_metric(self, gap: Gap) -> bool:
        """Whether a gap does the harm of what a metric drops, and not of what the loss rises by."""
        return gap.known and (not math.isnan(gap.drop) or gap.harm > self._losses.harm(gap.value))

    def cost(self, name: str) -> float:
        """What passes are compared by: the share that ``lost`` leaves wrong, else the mean loss."""
        told = self.lost and name in self.passes and self.lost in self.passes[name].metrics
        return 1.0 - self.passes[name].metrics[self.lost] if told else self.mean(name)

    def gap(self, upper: str, lower: str) -> Gap:
        """Mean of the paired difference of two passes; a clear loss in a metric counts as harm as well."""
        gap = self.part((upper, lower))
        if not (gap.known and self.has(upper, lower) and math.isnan(gap.drop)):
            return gap
        harm = metrics.harm(self.passes[upper], self.passes[lower])
        return replace(gap, harm=max(gap.harm, harm)) if gap.value > 0 else gap

    def part(self, *pairs: tuple[str, str]) -> Gap:
        """Sum of paired differences, such as ``(a - b) - (c - d)`` for ``("a", "b"), ("d", "c")``.

        Passes on other batches (new compositions of the rows) are compared by their means. Where it is a metric that
        shows a fault, each difference is told by that metric.
        """
        gap = self._difference(*pairs)
        if not (gap.known and self.lost):
            return gap
        passes = [(self.passes[upper], self.passes[lower]) for upper, lower in pairs]
        if not all(self.lost in each.metrics for pair in passes for each in pair):
            return gap
        drop, harm = metrics.drop(self.lost, self.cost(self.rival), passes)
        return replace(gap, harm=harm, drop=drop)

    def _difference(self, *pairs: tuple[str, str]) -> Gap:
        if not all(self.has(*pair) for pair in pairs):
            return UNKNOWN
        means = [self.mean(upper) - self.mean(lower) for upper, lower in pairs]
        if not all(math.isfinite(x) for x in means):
            infinite = all(math.isfinite(self.mean(lower)) for _, lower in pairs)
            return Gap(math.inf, 0.0, math.inf) if infinite else UNKNOWN
        value, error = float(sum(means)), self._error(pairs)
        if len(pairs) == 1 and self._is_carried_by_few(*pairs[0]):
            if not math.isnan(self.few_rows(*pairs[0])):
                error = float(np.fmin(error, self.error_of_rows(*pairs[0])))
            else:
                # The mean of so skewed values is far from normal: two of its standard errors are no rare event.
                error *= ERRORS_APART / STANDARD_ERRORS
        return Gap(value, error, self._losses.harm(value))

    def _is_carried_by_few(self, upper: str, lower: str) -> bool:
        share = self.evidence.samples.get(f"{upper}-{lower}", {}).get("share_of_top", math.nan)
        return self.passes is self.evidence.passes and share >= FEW_ROWS_CARRY

    def few_rows(self, upper: str, lower: str) -> float:
        """Share of a difference that 5% of the rows make up; NaN where rows were not measured or share it equally."""
        if not self._is_carried_by_few(upper, lower):
            return math.nan
        rows = self.evidence.samples[f"{upper}-{lower}"]
        surely = rows.get("mean", math.nan) > ERRORS_APART * self.error_of_rows(upper, lower)
        return rows["share_of_top"] if surely else math.nan

    def error_of_rows(self, upper: str, lower: str) -> float:
        """Standard error of a difference over rows; NaN where single rows were not measured.

        What lies in one or two batches never stands out from the spread of batches, however sure it is of each row.
        """
        rows = self.evidence.samples.get(f"{upper}-{lower}", {})
        return rows.get("deviation", math.nan) / math.sqrt(max(rows.get("count", 0.0), 1.0))

    def _error(self, pairs: tuple[tuple[str, str], ...]) -> float:
        """Standard error of the sum; NaN for a single batch."""
        sizes = [self.passes[name].sizes for pair in pairs for name in pair]
        if all(np.array_equal(s, sizes[0]) for s in sizes):
            apart = sum((self.passes[a].losses - self.passes[b].losses for a, b in pairs), np.zeros(len(sizes[0])))
            return standard_error(apart, sizes[0])
        errors = [spread_of_mean(self.passes[x]) for pair in pairs for x in pair]
        return float(np.sqrt(np.sum(np.square(errors))))

    # --- what inference is held against ---

    @cached_property
    def judged(self) -> str:
        """The inference that other causes are judged by: with channels that are not finite replaced, where some are."""
        return "put_right:nonfinite" if self.has("put_right:nonfinite") else "inference"

    @property
    def trained(self) -> str:
        """The pass with batch statistics where training should use them; see ``history.trained``."""
        return trained(self.evidence.passes)

    @cached_property
    def spread_limit(self) -> float:
        """See ``rival.spread_limit``."""
        return spread_limit(self.evidence)

    @cached_property
    def unlike(self) -> Mask:
        """Layers whose batch means differ by more than those of rows drawn at random, [L]."""
        return unlike(self.evidence)

    @cached_property
    def similar(self) -> bool:
        """Whether the batches look like random draws of the rows."""
        return similar(self.evidence)

    @cached_property
    def rival(self) -> str:
        """The pass that inference is held against; see ``rival.rival``."""
        return rival(self.evidence) if self.passes is self.evidence.passes else "batch"

    @cached_property
    def memorized(self) -> bool:
        """Whether the network knows the compositions of its batches by heart."""
        return memorized(self.evidence)

    @cached_property
    def rows_belong(self) -> bool:
        """Whether the rows of a batch belong together; see ``rival.rows_belong``."""
        return rows_belong(self.evidence)

    @cached_property
    def over_rival(self) -> Gap:
        """Inference minus its rival: what BatchNorm costs."""
        return self.gap("inference", self.rival)

    def undone(self, name: str) -> Gap:
        """What a pass takes away from the inference loss."""
        return self.gap("inference" if name == "put_right:nonfinite" else self.judged, name)

    def share(self, part: Gap) -> float:
        """A part of the loss over what BatchNorm costs in all, 0 to 1; NaN where either is not known."""
        whole = self.over_rival.size
        if not whole > 0.0 or not part.known:
            return math.nan
        if math.isinf(whole):
            if math.isinf(part.value):
                return 1.0
            whole = self.gap(self.judged, self.rival).size
        return min(max(part.size / whole, 0.0), 1.0) if whole > 0 else math.nan

    def metrics(self, here: str, there: str) -> dict[str, tuple[float, float]]:
        """The compiled metrics of two passes, where both have them."""
        if not self.has(here, there):
            return {}
        a, b = self.passes[here].metrics, self.passes[there].metrics
        return {name: (a[name], b[name]) for name in a if name in b and name != "loss"}

    @cached_property
    def replayed(self) -> dict[float, float]:
        """Momentum -> mean inference loss, had the momentum been this."""
        found = {m: self.mean(replay_row(m)) for m in REPLAY_MOMENTUMS}
        return {m: loss for m, loss in found.items() if not math.isnan(loss)}
