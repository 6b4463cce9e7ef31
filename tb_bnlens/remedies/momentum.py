"""Set the momentum of every BatchNorm layer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras

from tb_bnlens.remedies.layers import built_layers


def set_momentum(model: Any, value: float | Mapping[str, float]) -> dict[str, float]:
    """Set the momentum of every BatchNorm layer; Keras' momentum is the share that is *kept* at a step.

    Call it before ``compile``: a training step that is traced already keeps the old value. A warning says so
    where ``fit`` has traced one; a ``tf.function`` of your own has to be made anew.

    Args:
        model: a Keras model.
        value: one momentum for all, or layer name -> momentum (for instance what an earlier call returned).

    Returns:
        The old values by layer name: ``set_momentum(model, old)`` brings them back.

    Raises:
        NotImplementedError: not a Keras 3 model; on which backend it runs does not matter.
        ValueError: no BatchNorm layer, an unknown layer name, or a value outside of [0, 1).
    """
    layers = built_layers(model, "set_momentum")
    names = {t.name for t in layers}
    wanted = dict(value) if isinstance(value, Mapping) else dict.fromkeys(names, value)
    for name, momentum in wanted.items():
        if name not in names:
            raise ValueError(f"{name!r} is not a BatchNorm layer of the model; it has {', '.join(sorted(names))}")
        if not 0 <= momentum < 1:
            raise ValueError(
                f"momentum is {momentum!r}; expected 0 <= momentum < 1 (1 would never update, and PyTorch's 0.1 is "
                "0.9 in Keras)"
            )
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
    # Keras on torch runs the step as plain Python unless told otherwise.
    return keras.config.backend() != "torch" or bool(model.jit_compile)
