"""``capture.adapter.ModelAdapter`` for an nnx module."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from tb_bnlens.capture.passes import Array
from tb_bnlens.capture.reasons import what_is
from tb_bnlens.frameworks.flax.batches import FlaxBatches
from tb_bnlens.frameworks.flax.layers import FlaxLayer, StatisticsReader, find_layers, mark
from tb_bnlens.frameworks.flax.runner import FlaxRunner, Forward
from tb_bnlens.metadata import FLAX
from tb_bnlens.moments.segments import Segments


@dataclass(frozen=True)
class FlaxModel:
    """An nnx module.

    Raises:
        ValueError: it is not an nnx module.
    """

    model: Any
    loss: Callable[..., Any] | None = None
    """``loss(predictions, target)``."""
    metrics: Mapping[str, Any] | None = None
    """Name -> ``metric(predictions, target)``."""
    forward: Forward | None = None
    """``forward(model, x, training)`` where the model is not called as ``model(x)``."""

    batches = FlaxBatches()
    framework = FLAX

    def __post_init__(self) -> None:
        require_module(self.model)

    @property
    def called(self) -> str:
        """``"forward"`` where the user passes one."""
        return "" if self.forward is None else "forward"

    def untracked(self) -> tuple[str, ...]:
        """None: every ``nnx.BatchNorm`` has statistics."""
        return ()

    def not_read(self) -> tuple[str, ...]:
        """None that is known of."""
        return ()

    def left_out(self, layers: Sequence[Any]) -> tuple[int, ...]:
        """None: a step reads what is trainable each time."""
        return ()

    def is_chief(self) -> bool:
        """Whether this is the first process."""
        return bool(jax.process_index() == 0)

    def is_built(self, after_a_step: bool) -> bool:
        """Always: nnx makes layers where a module is made."""
        return True

    def layers(self) -> tuple[FlaxLayer, ...]:
        """The BatchNorm layers."""
        return find_layers(self.model)

    def reader(self, layers: Sequence[Any]) -> StatisticsReader:
        """A reader of these layers."""
        return StatisticsReader(layers)

    def runner(self, layers: Sequence[Any], segments: Segments) -> FlaxRunner:
        """Passes over the model."""
        return FlaxRunner(self.model, layers, segments, self.loss, self.metrics, self.forward)

    def weights_mark(self) -> Array:
        """Sums of the smallest parameters."""
        return mark(self.model)

    def learning_rate(self) -> None:
        """Not known: optax keeps it inside of the functions of the optimizer."""

    def versions(self) -> dict[str, str]:
        """Versions of flax and JAX."""
        return {package: importlib.metadata.version(package) for package in ("flax", "jax")}


def require_module(model: Any) -> None:
    """Refuse what is not an nnx module.

    Raises:
        ValueError: the message says what it is.
    """
    if not isinstance(model, nnx.Module):
        linen = any(base.__module__.startswith("flax.linen") for base in type(model).__mro__)
        hint = "; a Linen module has its statistics outside of it, which is not supported" if linen else ""
        raise ValueError(f"model is {what_is(model)}; expected a flax.nnx.Module{hint}")


def as_in_training(model: Any) -> Any:
    """The module, or where all its BatchNorm layers are in eval mode a copy in training mode, with the same arrays."""
    require_module(model)
    layers = find_layers(model)
    if not layers or not all(layer.module.use_running_average for layer in layers):
        return model
    own = nnx.merge(*nnx.split(model))
    own.train()
    return own
