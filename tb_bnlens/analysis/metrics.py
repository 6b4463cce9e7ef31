"""Compiled metrics of two passes: which of them are shares of rows that are right, and whether one has dropped."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

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
    return max(_harms(upper, lower, _rows(upper, lower)).values(), default=0.0)


def apparent_harm(upper: PassResult, lower: PassResult) -> float:
    """The same if no drop were chance: more rows may show what so few hide."""
    return max(_harms(upper, lower, math.inf).values(), default=0.0)


def lost(upper: PassResult, lower: PassResult) -> str:
    """The metric that does the most harm from one pass to another; empty where none has dropped."""
    harms = _harms(upper, lower, _rows(upper, lower))
    worst = max(harms, key=lambda name: harms[name], default="")
    return worst if worst and harms[worst] > 0.0 else ""


def fallen(upper: PassResult, lower: PassResult) -> list[str]:
    """Metrics that are lower in a pass than in another one, beyond chance, whatever harm that does."""
    found = []
    for name in upper.metrics:
        if name in lower.metrics and is_share(name):
            there, here = 1.0 - upper.metrics[name], 1.0 - lower.metrics[name]
            found += [name] if there - here > _chance(there + here, _rows(upper, lower)) else []
    return found


def drop(name: str, here: float, pairs: Sequence[tuple[PassResult, PassResult]]) -> tuple[float, float]:
    """What a metric loses over a sum of differences between passes, 0 within chance, and the harm of that.

    Args:
        name: the metric, which all passes have.
        here: 1 minus the metric where nothing is lost.
        pairs: the passes, in each pair the one that may have lost first.
    """
    wrong = [(1.0 - upper.metrics[name], 1.0 - lower.metrics[name]) for upper, lower in pairs]
    lost = sum(there - here for there, here in wrong)
    if not lost > _chance(sum(map(sum, wrong)), _rows(*(each for pair in pairs for each in pair))):
        return 0.0, 0.0
    return lost, _harm_of(lost, here)


def _harms(upper: PassResult, lower: PassResult, rows: float) -> dict[str, float]:
    """The harm of each metric that both passes have, 0 within the chance of so many rows."""
    harms = {}
    for name in upper.metrics:
        if name in lower.metrics and is_share(name):
            there, here = 1.0 - upper.metrics[name], 1.0 - lower.metrics[name]
            harms[name] = _harm_of(there - here, here) if there - here > _chance(there + here, rows) else 0.0
    return harms


def _rows(*passes: PassResult) -> float:
    return float(min(each.sizes.sum() for each in passes))


def _chance(wrong: float, rows: float) -> float:
    """What a sum of differences is at most by chance, of so many rows and the sum of their shares that are wrong."""
    return BEYOND_CHANCE * math.sqrt(wrong / max(rows, 1.0))


def _harm_of(drop: float, here: float) -> float:
    there = here + drop
    if drop >= WHOLE_DROP or (drop >= LARGE_DROP and there >= LARGE_GROWTH * here):
        return ERROR_HARM
    return WARNING_HARM if drop >= DROP and there >= GROWTH * here else 0.0
