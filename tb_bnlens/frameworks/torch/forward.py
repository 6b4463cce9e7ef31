"""How a model is called on the inputs of a batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn


class Forward(nn.Module):  # type: ignore[misc]
    """Calls a model: with a tuple as its arguments, with a mapping as keyword arguments where it takes those.

    It is a module so that ``functional_call`` can replace the buffers of the model in it.

    Args:
        model: the module.
        forward: ``forward(model, x)`` in place of that.
    """

    def __init__(self, model: Any, forward: Callable[..., Any] | None = None):
        super().__init__()
        self.model = model
        self._forward = forward or _call

    def forward(self, x: Any) -> Any:
        """Predictions of the model."""
        return self._forward(self.model, x)

    @staticmethod
    def named(buffers: Mapping[str, Any]) -> dict[str, Any]:
        """Buffers of the model by the names that they have here."""
        return {f"model.{name}": value for name, value in buffers.items()}


def _call(model: Any, x: Any) -> Any:
    if isinstance(x, Mapping):
        return model(**x) if takes(model, x) else model(x)
    return model(*x) if isinstance(x, tuple) else model(x)


def takes(model: Any, inputs: Mapping[str, Any]) -> bool:
    """Whether ``forward`` has parameters of these names."""
    try:
        inspect.signature(model.forward).bind(**inputs)
    except TypeError:
        return False
    return True
