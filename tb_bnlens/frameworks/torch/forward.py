"""How a model is called on the inputs of a batch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tb_bnlens.frameworks.torch.layers import unwrapped


def call(model: Any, x: Any) -> Any:
    """Predictions: a tuple or a list is the arguments where the model takes so many, else one argument.

    Where both fit, a tuple is the arguments and a list is one: loaders make lists of what a dataset has in tuples. A
    mapping is the keyword arguments where the model has those.
    """
    if isinstance(x, Mapping):
        return model(**x) if _fits(model, named=x) else model(x)
    if not isinstance(x, tuple | list):
        return model(x)
    alone, spread = _fits(model, (x,)), _fits(model, x)
    # What fits neither way is called as a tuple is, so that the error says what the model takes.
    as_arguments = spread or not alone if isinstance(x, tuple) else spread and not alone
    return model(*x) if as_arguments else model(x)


def _fits(model: Any, inputs: Sequence[Any] = (), named: Mapping[str, Any] = MappingProxyType({})) -> bool:
    """Whether ``forward`` can be called with these arguments; wrappers take any."""
    try:
        inspect.signature(unwrapped(model)[0].forward).bind(*inputs, **named)
    except (TypeError, ValueError):
        return False
    return True


def left_out(model: Any, x: Any) -> list[str]:
    """Arguments of ``forward`` with a default that these inputs leave out."""
    try:
        parameters = inspect.signature(unwrapped(model)[0].forward).parameters
    except (TypeError, ValueError):
        return []
    given = list(x) if isinstance(x, Mapping) else list(parameters)[: len(x) if isinstance(x, tuple) else 1]
    return [name for name, p in parameters.items() if name not in given and p.default is not p.empty]
