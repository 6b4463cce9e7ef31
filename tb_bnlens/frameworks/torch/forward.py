"""How a model is called on the inputs of a batch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any


def call(model: Any, x: Any) -> Any:
    """Predictions: a tuple is the arguments, and so is a list where the model does not take it as one argument.

    A mapping is the keyword arguments where the model has those. Loaders make lists of what a dataset has in tuples.
    """
    if isinstance(x, Mapping):
        return model(**x) if _fits(model, named=x) else model(x)
    spread = isinstance(x, tuple) or (isinstance(x, list) and not _fits(model, (x,)) and _fits(model, x))
    return model(*x) if spread else model(x)


def _fits(model: Any, inputs: Sequence[Any] = (), named: Mapping[str, Any] = MappingProxyType({})) -> bool:
    """Whether ``forward`` can be called with these arguments."""
    try:
        inspect.signature(model.forward).bind(*inputs, **named)
    except (TypeError, ValueError):
        return False
    return True
