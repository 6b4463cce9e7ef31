"""Set the momentum of every BatchNorm layer of an nnx module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tb_bnlens.frameworks.flax.adapter import require_module
from tb_bnlens.frameworks.flax.layers import find_layers
from tb_bnlens.remedies.kept_share import by_layer


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
        ValueError: the model is not an nnx module, it has no BatchNorm layer, a name is unknown, a value is outside
            [0, 1), or one value below 0.5 is given for all layers without ``allow_low``.
    """
    require_module(model)
    modules = {layer.name: layer.module for layer in find_layers(model)}
    if not modules:
        raise ValueError(f"The model {type(model).__name__} has no nnx.BatchNorm")
    wanted = by_layer(value, modules, allow_low=allow_low, whose="The momentum of flax")
    old = {name: float(modules[name].momentum) for name in wanted}
    for name, momentum in wanted.items():
        modules[name].momentum = float(momentum)
    return old
