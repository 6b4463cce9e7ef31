"""Compiled metrics of two passes: which of them are shares of rows that are right, and whether one has dropped."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from tb_bnlens.analysis.loss_gap import ERROR_HARM, WARNING_HARM
from tb_bnlens.history import PassResult

SHARES = re.compile(r"accuracy|(^|_)(acc|auc|precision|recall|f1|iou|dice|top_?\d+|top_k)(_|\d|$)")
"""Names of metrics between 0 and 1 where 1 is best."""
DROP = 0.02
"""Drop from which it is a warning, where it also makes the distance to 1 larger by 50%."""
GROWTH = 1.5
LARGE_DROP = 0.05
"""...and an error, where it also doubles the rest."""
LARGE_GROWTH = 2.0
WHOLE_DROP = 0.10
"""...and an error whatever the rest is. These are chosen: what a user would mind, as the bands of harm are."""
BEYOND_CHANCE = 3.0
"""Unpaired: the rows that differ between the passes are not known, so the spread is the largest it can be."""


def is_share(name: str) -> bool:
    """Whether a metric is a share of 1, and 1 is best.

    Example:
        >>> is_share("sparse_categorical_accuracy"), is_share("mae"), is_share("top2"), is_share("top_error")
        (True, False, True, False)
    """
    return bool(SHARES.search(name))


def harm(upper: PassResult, lower: PassResult) -> float:
    """Harm that a drop of the metrics from one pass to another does: that of a warning or of an error, else 0.

    A drop counts where it is beyond chance: of N rows, the ones that are wrong in either pass can have changed, so the
    drop's standard error is at most ``sqrt((wrong there + wrong here) / N)``.
    """
    rows = float(min(upper.sizes.sum(), lower.sizes.sum()))
    return max((_harm(a, b, rows) for a, b in _pairs(upper.metrics, lower.metrics)), default=0.0)


def lost(upper: PassResult, lower: PassResult) -> str:
    """The metric that does the most harm from one pass to another; empty where none has dropped."""
    rows = float(min(upper.sizes.sum(), lower.sizes.sum()))
    names = [name for name in upper.metrics if name in lower.metrics and is_share(name)]
    harms = {name: _harm(1.0 - upper.metrics[name], 1.0 - lower.metrics[name], rows) for name in names}
    worst = max(harms, key=lambda name: harms[name], default="")
    return worst if worst and harms[worst] > 0.0 else ""


def drop(name: str, here: float, pairs: Sequence[tuple[PassResult, PassResult]]) -> tuple[float, float]:
    """What a metric loses over a sum of differences between passes, 0 within chance, and the harm of that.

    Args:
        name: the metric, which all passes have.
        here: 1 minus the metric where nothing is lost.
        pairs: the passes, in each pair the one that may have lost first.
    """
    wrong = [1.0 - each.metrics[name] for pair in pairs for each in pair]
    rows = float(min(each.sizes.sum() for pair in pairs for each in pair))
    lost = sum(wrong[0::2]) - sum(wrong[1::2])
    if not lost > BEYOND_CHANCE * math.sqrt(sum(wrong) / max(rows, 1.0)):
        return 0.0, 0.0
    return lost, _harm_of(lost, here)


def _pairs(upper: Mapping[str, float], lower: Mapping[str, float]) -> list[tuple[float, float]]:
    """1 minus a metric in both passes."""
    both = [(1.0 - upper[name], 1.0 - lower[name]) for name in upper if name in lower and is_share(name)]
    return [(a, b) for a, b in both if 0.0 <= a <= 1.0 and 0.0 <= b <= 1.0]


def _harm(there: float, here: float, rows: float) -> float:
    if not there - here > BEYOND_CHANCE * math.sqrt((there + here) / max(rows, 1.0)):
        return 0.0
    return _harm_of(there - here, here)


def _harm_of(drop: float, here: float) -> float:
    there = here + drop
    if drop >= WHOLE_DROP or (drop >= LARGE_DROP and there >= LARGE_GROWTH * here):
        return ERROR_HARM
    return WARNING_HARM if drop >= DROP and there >= GROWTH * here else 0.0
