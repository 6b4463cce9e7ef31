"""How a model is called on the inputs of a batch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any


def call(model: Any, x: Any) -> Any:
    """Predictions: a tuple is the arguments, and a mapping the keyword arguments where the model has those."""
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
