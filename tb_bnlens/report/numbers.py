"""Numbers as JSON takes them."""

from __future__ import annotations

import math


def rounded(value: float) -> float:
    """A finite number at the seven digits that a float32 has."""
    return float(f"{float(value):.7g}")


def number(value: float) -> float | None:
    """The same, None where it is not finite: JSON has no NaN and no infinity."""
    return rounded(value) if math.isfinite(value) else None
