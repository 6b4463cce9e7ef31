"""Set the momentum of every BatchNorm layer of an nnx module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tb_bnlens.frameworks.flax.adapter import require_module
from tb_bnlens.frameworks.flax.layers import find_layers

LOWEST = 0.5
"""Below this a single number is taken for PyTorch's convention: nobody advises so short a memory."""


def set_momentum(model: Any, value: float | Mapping[str, float], *, allow_low: bool = False) -> dict[str, float]:
    """Set the momentum of every BatchNorm layer. In flax, momentum is the share that is *kept* at an update.

    A step under ``nnx.jit`` that takes the module as an argument is compiled again and uses it from the next call on.

    Args:
        model: an ``nnx.Module``.
        value: one momentum for all layers, or layer name -> momentum, such as the result of an earlier call.
        allow_low: accept one momentum below 0.5 for all. Without it that is refused: it may be meant as PyTorch's
            momentum, which is ``1 - momentum`` here.

    Returns:
        The old values by layer name. ``set_momentum(model, old)`` restores them.

    Raises:
        ValueError: the model is no nnx module, it has no BatchNorm layer, a name is unknown, a value is outside
            [0, 1), or one value below 0.5 is given for all layers without ``allow_low``.
    """
    require_module(model)
    modules = {layer.name: layer.module for layer in find_layers(model)}
    if not modules:
        raise ValueError(f"The model {type(model).__name__} has no nnx.BatchNorm")
    if not isinstance(value, Mapping) and 0 < value < LOWEST and not allow_low:
        raise ValueError(
            f"momentum is {value!r}, so each batch would replace {1 - value:.0%} of the statistics. The momentum of "
            f"flax is the share that is kept: PyTorch's {value:g} is {1 - value:g} here. Pass allow_low=True to set it "
            "anyway"
        )
    wanted = dict(value) if isinstance(value, Mapping) else dict.fromkeys(modules, value)
    for name, momentum in wanted.items():
        if name not in modules:
            raise ValueError(f"{name!r} is not a BatchNorm layer of the model; it has {', '.join(sorted(modules))}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum!r}; expected 0 <= momentum < 1 (1 would never update)")
    old = {name: float(modules[name].momentum) for name in wanted}
    for name, momentum in wanted.items():
        modules[name].momentum = float(momentum)
    return old
