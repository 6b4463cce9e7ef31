"""How a model is called on the inputs of a batch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any


def call(model: Any, x: Any) -> Any:
    """Predictions: a tuple is the arguments, and so is a list where the model does not take it as one argument.

    A mapping is the keyword arguments where the model has those. Loaders make lists of what a dataset has in tuples.
    """
    if isinstance(x, Mapping):
        return model(**x) if takes(model, x) else model(x)
    spread = isinstance(x, tuple) or (isinstance(x, list) and not _fits(model, x) and _fits(model, *x))
    return model(*x) if spread else model(x)


def _fits(model: Any, *inputs: Any) -> bool:
    """Whether ``forward`` can be called with these arguments."""
    try:
        inspect.signature(model.forward).bind(*inputs)
    except (TypeError, ValueError):
        return False
    return True


def takes(model: Any, inputs: Mapping[str, Any]) -> bool:
    """Whether ``forward`` has parameters of these names."""
    try:
        inspect.signature(model.forward).bind(**inputs)
    except TypeError:
        return False
    return True
