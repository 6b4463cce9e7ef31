"""How much of a loss is much: a unit that an offset of the loss does not change and that scales with it.

A ratio of losses needs a zero that means something. Regularization, likelihoods and label smoothing move it. What the
rows of one run's batches differ by does not depend on it: the unit is the mean loss of a row above the loss of the
easiest rows. Where the easiest rows come down to zero, as in most classifications and regressions, this is the mean
loss itself, so that a gap of one unit doubles the loss.
"""

from __future__ import annotations

import math

import numpy as np

from tb_bnlens.analysis.rival import rival
from tb_bnlens.history import Evidence, trained

EASIEST = "q01"
"""The easiest rows: a quantile, since the least of many rows may be an outlier."""
LEAST_BATCHES = 4
"""Batches whose losses tell a standard deviation to a factor of two (chi-squared, 3 degrees of freedom)."""


def unit(evidence: Evidence) -> float:
    """The loss of a typical row above that of the easiest rows, as ``rival`` has them; NaN where it is not known.

    Without the losses of single rows it is their standard deviation, from that of the batches: for losses that fall off
    exponentially from a zero both are the mean. Batches of equal loss are one batch, as where a graph is all the data,
    and tell no deviation.
    """
    if rival(evidence) not in evidence.passes:
        return math.nan
    held = evidence.passes[rival(evidence)]
    found = held.mean - _rows(evidence).get(EASIEST, math.nan)
    if not math.isfinite(found) and len(held.losses) >= LEAST_BATCHES and not np.allclose(held.losses, held.mean):
        with np.errstate(all="ignore"):
            found = float(np.std(held.losses, ddof=1) * math.sqrt(np.mean(held.sizes)))
    return found if math.isfinite(found) and found > 0 else math.nan


def from_zero(evidence: Evidence) -> bool:
    """Whether the easiest rows come down to zero, so that the ratio of two losses means what it says."""
    rows = _rows(evidence)
    easiest, mean = rows.get(EASIEST, math.nan), rows.get("mean", math.nan)
    if not (math.isfinite(easiest) and math.isfinite(mean)):
        losses = evidence.passes["batch"].losses if "batch" in evidence.passes else np.empty(0)
        return bool(len(losses) and np.min(losses) >= 0)
    return bool(0 <= easiest <= 0.5 * mean)


def _rows(evidence: Evidence) -> dict[str, float]:
    """Losses of single rows as training sees them."""
    return dict(evidence.samples.get(trained(evidence.passes), evidence.samples.get("batch", {})))
