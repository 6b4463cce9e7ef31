"""Set the momentum of every BatchNorm module, in PyTorch's convention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tb_bnlens.capture.reasons import what_is
from tb_bnlens.frameworks.torch.layers import batch_norms

HIGHEST = 0.5
"""From here on a single number is taken for the convention of Keras: nobody advises so short a memory."""


def set_momentum(
    model: Any, value: float | Mapping[str, float | None] | None, *, allow_high: bool = False
) -> dict[str, float | None]:
    """Set the momentum of every BatchNorm module. In PyTorch, momentum is the share that a batch *replaces*.

    It takes effect at the next forward pass.

    Args:
        model: a ``torch.nn.Module``.
        value: one momentum for all modules, None for the plain mean of all batches, or module name -> momentum, such as
            the result of an earlier call.
        allow_high: accept one momentum of 0.5 or more for all. Without it that is refused: it may be meant as the
            momentum of Keras, which is ``1 - momentum`` here.

    Returns:
        The old values by module name. ``set_momentum(model, old)`` restores them.

    Raises:
        ValueError: the model is not a module, it has no BatchNorm module, a name is unknown, a value is outside (0, 1],
            or one value of 0.5 or more is given for all modules without ``allow_high``.
    """
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"model is {what_is(model)}; expected a torch.nn.Module")
    modules = dict(batch_norms(model))
    if not modules:
        raise ValueError(f"The model {type(model).__name__} has no BatchNorm module")
    one = None if isinstance(value, Mapping) else value
    if one is not None and HIGHEST <= one <= 1 and not allow_high:
        raise ValueError(
            f"momentum is {one!r}, so each batch would replace {one:.0%} of the statistics. PyTorch's momentum is the "
            f"share that is replaced: the {one:g} of Keras is {1 - one:.6g} here. Pass allow_high=True to set it anyway"
        )
    wanted = dict(value) if isinstance(value, Mapping) else dict.fromkeys(modules, value)
    for name, momentum in wanted.items():
        if name not in modules:
            raise ValueError(f"{name!r} is not a BatchNorm module of the model; it has {', '.join(sorted(modules))}")
        if momentum is not None and not 0 < momentum <= 1:
            raise ValueError(f"momentum is {momentum!r}; expected 0 < momentum <= 1 (0 never updates), or None")
    old = {name: modules[name].momentum for name in wanted}
    for name, momentum in wanted.items():
        modules[name].momentum = momentum
    return old
