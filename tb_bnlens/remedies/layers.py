"""The BatchNorm layers that a remedy is applied to."""

from __future__ import annotations

from typing import Any

from tb_bnlens.capture.reasons import what_is
from tb_bnlens.frameworks.keras3.backend import backend
from tb_bnlens.frameworks.keras3.layers import KerasLayer, find_layers
from tb_bnlens.frameworks.support import require, unsupported


def built_layers(model: Any, what: str) -> tuple[KerasLayer, ...]:
    """The layers of a built Keras model on any backend. If there are none, ``ValueError`` gives the reason."""
    require(unsupported(model, any_backend=True), what)
    if not isinstance(model, backend(model).library.keras.Model):
        raise ValueError(f"model is {what_is(model)}; expected a keras.Model")
    layers = find_layers(model)
    if not layers:
        reason = "has no BatchNorm layer" if model.built else "is not built; call it on a batch first"
        raise ValueError(f"The model {model.name!r} {reason}")
    return layers
