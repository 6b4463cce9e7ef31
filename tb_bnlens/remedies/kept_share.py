"""The momentum values that a user sets, where momentum is the share that is kept at an update."""

from __future__ import annotations

import numbers
from collections.abc import Collection, Mapping

LOWEST = 0.5
"""Below this a single number is taken for PyTorch's convention: nobody advises so short a memory."""


def by_layer(
    value: float | Mapping[str, float], names: Collection[str], *, allow_low: bool, whose: str
) -> dict[str, float]:
    """Layer name -> momentum, each checked.

    Args:
        value: one momentum for all layers, or layer name -> momentum.
        names: of the BatchNorm layers.
        allow_low: accept one momentum below 0.5 for all.
        whose: the momentum, in a sentence: ``"Keras' momentum"``.

    Raises:
        ValueError: a name is unknown, a value is no number in [0, 1), or one value is low without ``allow_low``.
    """
    if isinstance(value, Mapping):
        wanted = dict(value)
    elif _is_number(value) and 0 < value < LOWEST and not allow_low:
        raise ValueError(
            f"momentum is {value!r}, so each batch would replace {1 - value:.0%} of the statistics. {whose} is the "
            f"share that is kept: PyTorch's {value:g} is {1 - value:g} here. Pass allow_low=True to set it anyway"
        )
    else:
        wanted = dict.fromkeys(names, value)
    for name, momentum in wanted.items():
        if name not in names:
            raise ValueError(f"{name!r} is not a BatchNorm layer of the model; it has {', '.join(sorted(names))}")
        if not (_is_number(momentum) and 0 <= momentum < 1):
            raise ValueError(
                f"momentum is {momentum!r}; expected 0 <= momentum < 1 (1 would never update, and PyTorch's 0.1 is 0.9 "
                "here)"
            )
    return wanted


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
