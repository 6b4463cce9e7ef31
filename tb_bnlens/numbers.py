"""Numbers as text, the same in the report, the terminal and the tab.

``frontend/src/format.ts`` has the same rules for the tab, with a typographic minus sign.
``tests/fixtures/numbers.json`` is the table that both sides are tested with.
"""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Context, Decimal

from tb_bnlens.metadata import TORCH

_THREE_DIGITS = Context(prec=3, rounding=ROUND_HALF_UP)
_SMALLEST_PLAIN = Decimal("1e-4")
_LARGEST_PLAIN = Decimal("1e7")


def number(value: float | None) -> str:
    """Three significant digits; whole numbers with separators from 1,000; scientific below 1e-4 and from 1e7.

    A half rounds away from zero, as JavaScript's ``toPrecision`` does. ``None`` and NaN are "?", infinity is
    "not finite".

    Example:
        >>> number(15126.4), number(1.1834), number(0.000213), number(2.13e-5)
        ('15,126', '1.18', '0.000213', '2.13e-5')
    """
    if value is None or math.isnan(value):
        return "?"
    if math.isinf(value):
        return "not finite"
    exact = Decimal(value)
    rounded = _THREE_DIGITS.plus(exact)
    size = abs(rounded)
    if not size:
        return "0"
    if not _SMALLEST_PLAIN <= size < _LARGEST_PLAIN:
        mantissa, exponent = f"{rounded:e}".split("e")
        return f"{_trimmed(mantissa)}e{int(exponent)}"
    if size >= 1000:
        return f"{exact.to_integral_value(ROUND_HALF_UP):,}"
    return _trimmed(f"{rounded:f}")


def times(ratio: float) -> str:
    """How many times one value is another, to three significant digits: "1.23", "46", "12,800".

    Example:
        >>> times(12803.2), times(46.04), times(1.234)
        ('12,800', '46', '1.23')
    """
    if not math.isfinite(ratio):
        return number(ratio)
    return number(float(_THREE_DIGITS.plus(Decimal(ratio))))


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def as_set(momentum: float, framework: str) -> float:
    """A momentum as users of a framework set it: Keras' is the share that an update keeps, PyTorch's what it replaces.

    Args:
        momentum: the share that is kept, which may be float32.
        framework: as ``Manifest.framework``.

    Example:
        >>> as_set(0.999, "torch")
        0.001
    """
    return round(1.0 - momentum, 7) if framework == TORCH else momentum
