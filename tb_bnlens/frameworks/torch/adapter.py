"""``capture.adapter.ModelAdapter`` for a PyTorch model."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tb_bnlens.capture.passes import Array
from tb_bnlens.capture.reasons import what_is
from tb_bnlens.frameworks.torch import parts, unreached
from tb_bnlens.frameworks.torch.batches import TorchBatches
from tb_bnlens.frameworks.torch.layers import (
    StatisticsReader,
    TorchLayer,
    find_layers,
    is_built,
    mark,
    unwrapped,
    waits_for_a_batch,
)
from tb_bnlens.frameworks.torch.layers import untracked as untracked_in
from tb_bnlens.frameworks.torch.modes import modes
from tb_bnlens.frameworks.torch.runner import TorchRunner
from tb_bnlens.metadata import TORCH
from tb_bnlens.moments.segments import Segments


@dataclass(frozen=True)
class TorchModel:
    """A PyTorch module, wrappers such as ``DistributedDataParallel`` included.

    Raises:
        ValueError: it is not a module.
    """

    model: Any
    loss: Callable[..., Any] | None = None
    """``loss(predictions, target)``; without it the model's output has to hold one."""
    metrics: Mapping[str, Any] | None = None
    """Name -> ``metric(predictions, target)``, or an object like those of torchmetrics."""
    forward: Callable[..., Any] | None = None
    """``forward(model, x)`` where the model is not called as ``forward.call`` says."""
    optimizer: Any = None
    """For the learning rate."""
    rank_means: list[Array] = field(default_factory=list)
    """Mean statistics of the data of each rank, [C_total] each, once they are known; see ``ranks.apart``."""

    batches = TorchBatches()
    framework = TORCH

    def __post_init__(self) -> None:
        if not isinstance(self.model, torch.nn.Module):
            raise ValueError(f"model is {what_is(self.model)}; expected a torch.nn.Module")
        if self.optimizer is not None and not hasattr(self.optimizer, "param_groups"):
            raise ValueError(f"optimizer is {what_is(self.optimizer)}; expected a torch.optim.Optimizer")

    @property
    def called(self) -> str:
        """``"forward"`` where the user passes one; that of a callback is known to it alone."""
        own = self.forward is None or getattr(self.forward, "__module__", "").startswith("tb_bnlens.")
        return "" if own else "forward"

    def untracked(self) -> tuple[str, ...]:
        """Modules with ``track_running_stats=False``."""
        return untracked_in(self.model)

    def not_read(self) -> tuple[str, ...]:
        """Modules of other classes with statistics, and models compiled by ``torch.jit``."""
        return unreached.not_read(unwrapped(self.model)[0])

    def left_out(self, layers: Sequence[Any]) -> tuple[int, ...]:
        """None: a step reads what is trainable each time."""
        return ()

    def is_chief(self) -> bool:
        """Whether this process has rank 0, or is alone."""
        dist = torch.distributed
        return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0

    def is_built(self, after_a_step: bool) -> bool:
        """Whether lazy modules have met a batch; after a step some may be left that nothing calls."""
        return not waits_for_a_batch(self.model) if after_a_step else is_built(self.model)

    def layers(self) -> tuple[TorchLayer, ...]:
        """The BatchNorm modules that track statistics."""
        return find_layers(self.model, self.optimizer)

    def reader(self, layers: Sequence[Any]) -> StatisticsReader:
        """A reader of these layers."""
        return StatisticsReader(layers, self.rank_means)

    def runner(self, layers: Sequence[Any], segments: Segments) -> TorchRunner:
        """Passes over the model."""
        return TorchRunner(self.model, layers, segments, self.loss, self.metrics, self.forward)

    def weights_mark(self) -> Array:
        """Sums of the smallest parameters."""
        return mark(parts.parameters(self.model))

    def learning_rate(self) -> float | None:
        """Of the first group of parameters, None where no optimizer was given."""
        return None if self.optimizer is None else float(self.optimizer.param_groups[0]["lr"])

    def versions(self) -> dict[str, str]:
        """Version of PyTorch."""
        return {"torch": importlib.metadata.version("torch")}


@contextlib.contextmanager
def as_in_training(model: Any) -> Iterator[None]:
    """Let a model that is in eval mode as a whole be in training mode in the block: what training would make of it."""
    plain, _ = unwrapped(model)
    wanted = {} if parts.value_of(plain, "training") else dict.fromkeys(parts.modules(plain), True)
    with modes(wanted):
        yield
