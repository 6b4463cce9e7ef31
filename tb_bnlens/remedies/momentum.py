"""Set the momentum of every BatchNorm layer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from tb_bnlens.frameworks.keras3.backend import backend
from tb_bnlens.remedies.kept_share import by_layer
from tb_bnlens.remedies.layers import built_layers


def set_momentum(model: Any, value: float | Mapping[str, float], *, allow_low: bool = False) -> dict[str, float]:
    """Set the momentum of every BatchNorm layer. In Keras, momentum is the share that is *kept* at an update.

    Call it before ``compile``: a training step that was already traced keeps the old value. If ``fit`` has traced
    one, a warning says so. A ``tf.function`` of your own must be traced again.

    Args:
        model: a Keras model.
        value: one momentum for all layers, or layer name -> momentum, such as the result of an earlier call.
        allow_low: accept one momentum below 0.5 for all. Without it that is refused: it may be meant as PyTorch's
            momentum, which is ``1 - momentum`` here.

    Returns:
        The old values by layer name. ``set_momentum(model, old)`` restores them.

    Raises:
        NotImplementedError: not a Keras model; on which backend it runs does not matter.
        ValueError: there is no BatchNorm layer, a layer name is unknown, a value is outside [0, 1), or one value below
            0.5 is given for all layers without ``allow_low``.
    """
    layers = built_layers(model, "set_momentum")
    wanted = by_layer(value, {t.name for t in layers}, allow_low=allow_low, whose="Keras' momentum")
    old = {t.name: float(t.layer.momentum) for t in layers if t.name in wanted}
    changed = [t for t in layers if t.name in wanted and t.layer.momentum != wanted[t.name]]
    for tracked in changed:
        tracked.layer.momentum = float(wanted[tracked.name])
    if changed and _is_traced(model):
        warnings.warn(
            "The training step was traced before set_momentum and keeps the old momentum; call model.compile(...) "
            "again before the next fit.",
            stacklevel=2,
        )
    return old


def _is_traced(model: Any) -> bool:
    """Whether ``fit`` has compiled a step that keeps the momentum of then."""
    if getattr(model, "train_function", None) is None or model.run_eagerly:
        return False
    return backend(model).traces_steps(model)
