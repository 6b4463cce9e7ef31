"""Find the BatchNorm modules of a PyTorch model, and read their running statistics.

A record tells every momentum as the share that an update *keeps*, which is ``1 - momentum`` of PyTorch's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import UninitializedTensorMixin

from tb_bnlens.capture.guard import NotRecorded
from tb_bnlens.frameworks.torch import parts
from tb_bnlens.history import Layer
from tb_bnlens.metadata import CUMULATIVE
from tb_bnlens.moments.layers import described, without_statistics
from tb_bnlens.moments.recovery import Snapshot

COARSE = (torch.bfloat16, torch.float16)
WRAPPERS = {
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "AveragedModel": "module",
    "OptimizedModule": "_orig_mod",
}
"""Classes of PyTorch's modules that go around a model, and the attribute that holds it."""
MARKED = 8
"""Parameters that tell whether weights have moved, the smallest ones: a step of an optimizer moves most of them."""


def unwrapped(model: Any) -> tuple[Any, str]:
    """The module inside ``DistributedDataParallel`` or another of ``WRAPPERS``, and how ``model`` reaches it."""
    access = "model"
    while (inner := _inside(model)) is not None:
        model, access = getattr(model, inner), f"{access}.{inner}"
    return model, access


def _inside(model: Any) -> str | None:
    cls = type(model)
    return WRAPPERS.get(cls.__name__) if cls.__module__.startswith("torch.") else None


@dataclass(frozen=True, eq=False)
class TorchLayer:
    """A BatchNorm module that tracks running statistics; see ``moments.layers.TrackedLayer``."""

    module: Any
    path: str
    """What ``get_submodule`` and ``named_buffers`` know it by; empty for the model itself."""
    access: str
    weights: tuple[Any, ...]
    """Its parameters and those of the module before it, whose output it normalizes."""
    marked: NDArray[np.float64]
    """``mark`` of them when the layer was found."""
    counted: int
    """Updates when the layer was found."""
    optimizer: Any = None
    """Where one is known."""

    renorm = False
    looped = False
    calls = None

    @property
    def name(self) -> str:
        """Its path, without what ``torch.compile`` puts in; the name of its class where it is the model itself."""
        return _name(self.path, self.module)

    @property
    def cumulative(self) -> bool:
        """``momentum=None``: a plain mean of all batches so far."""
        return parts.value_of(self.module, "momentum") is None

    @property
    def updates(self) -> int:
        """Updates of the statistics so far, as the module counts them."""
        return int(parts.value_of(self.module, "num_batches_tracked"))

    @property
    def momentum(self) -> float:
        """Share that the next update keeps."""
        if self.cumulative:
            return 1 - 1 / (self.updates + 1)
        return 1 - float(parts.value_of(self.module, "momentum"))

    @property
    def channels(self) -> int:
        """Length of the statistics."""
        return int(parts.value_of(self.module, "num_features"))

    @property
    def epsilon(self) -> float:
        """What is added to the variance."""
        return float(parts.value_of(self.module, "eps"))

    @property
    def trainable(self) -> bool:
        """Whether its weights are to be trained. Its statistics are another matter: ``.eval()`` freezes those."""
        return not self.weights or any(p.requires_grad for p in self.weights)

    @property
    def trained(self) -> bool:
        """Whether training changes its weights: after two updates of the statistics, whether they have moved.

        Flags say less: an optimizer may not have the weights, and a GAN switches them in each step.
        """
        if not self.weights or self.updates - self.counted < 2:
            return self.trainable
        return self.moved or self._is_optimized

    @property
    def _is_optimized(self) -> bool:
        """Whether the optimizer has some of its weights, which a gradient of zero leaves where they are."""
        groups = [] if self.optimizer is None else [g for g in self.optimizer.param_groups if g.get("lr", 1)]
        given = {id(p) for group in groups for p in group["params"]}
        return any(p.requires_grad and id(p) in given for p in self.weights)

    @property
    def lacks_statistics(self) -> bool:
        """Whether it has been trained and has the statistics of a new layer now."""
        held = (parts.value_of(self.module, name) for name in ("bias", "running_mean", "running_var"))
        return not self.updates and without_statistics(lambda tensor: tensor.detach().float().cpu().numpy(), *held)

    @property
    def moved(self) -> bool:
        """Whether its weights are others than when it was found."""
        return not np.array_equal(mark(self.weights), self.marked, equal_nan=True)

    @property
    def coarse(self) -> bool:
        """Running statistics of two or three digits, which float32's seven cannot be recovered from."""
        return parts.value_of(self.module, "running_mean").dtype in COARSE

    def describe(self, index: int, order: int = -1, calls: int = 1) -> Layer:
        """The manifest's entry for this layer."""
        kind = type(self.module).__name__ + (f" ({CUMULATIVE})" if self.cumulative else "")
        own = {"trainable": self.trained, "access": self.access}
        return described(self, index, order, calls, axis=1, kind=kind, **own)


def find_layers(model: Any, optimizer: Any = None) -> tuple[TorchLayer, ...]:
    """The BatchNorm modules that track running statistics, each once, in the order of ``named_modules``.

    A lazy module that has not seen a batch has no statistics yet and is left out: ask again after the first step.

    Args:
        model: the outermost module, wrappers included.
        optimizer: that of the training, where it is known.
    """
    plain, access = unwrapped(model)
    found = []
    before: tuple[Any, ...] = ()
    for path, module in parts.named_modules(plain):
        own = tuple(parts.own_tensors(module, "_parameters"))
        if issubclass(type(module), _BatchNorm) and tracks(module):
            reach = f"{access}.get_submodule({path!r})" if path else access
            weights = (*own, *before)
            counted = int(parts.value_of(module, "num_batches_tracked"))
            found.append(TorchLayer(module, path, reach, weights, mark(weights), counted, optimizer))
        elif own:
            before = own
    return tuple(found)


def tracks(module: Any) -> bool:
    """Whether a BatchNorm module has running statistics; a lazy one has none before its first batch."""
    mean = parts.value_of(module, "running_mean")
    return mean is not None and not isinstance(mean, UninitializedTensorMixin)


def untracked(model: Any) -> tuple[str, ...]:
    """Names of BatchNorm modules with ``track_running_stats=False``, which normalize by the batch at inference too."""
    return tuple(name for name, m in batch_norms(model) if parts.value_of(m, "running_mean") is None)


def is_built(model: Any) -> bool:
    """Whether every lazy BatchNorm module has met a batch."""
    return not any(
        isinstance(parts.value_of(m, "running_mean"), UninitializedTensorMixin) for _, m in batch_norms(model)
    )


def waits_for_a_batch(model: Any) -> bool:
    """Whether there are lazy BatchNorm modules, and no other module that tracks statistics."""
    return not is_built(model) and not any(tracks(m) for _, m in batch_norms(model))


def batch_norms(model: Any) -> Iterator[tuple[str, Any]]:
    """Every BatchNorm module with its name, whether it tracks statistics or not."""
    for path, module in parts.named_modules(unwrapped(model)[0]):
        if issubclass(type(module), _BatchNorm):
            yield _name(path, module), module


def _name(path: str, module: Any) -> str:
    return path.replace("_orig_mod.", "") or type(module).__name__


def mark(parameters: Iterable[Any]) -> NDArray[np.float64]:
    """A few numbers that change when some of the parameters do: sums of the smallest ones."""
    known = [p for p in parameters if not isinstance(p, UninitializedTensorMixin)]
    small = sorted(known, key=lambda p: int(p.numel()))[:MARKED]
    if not small:
        return np.zeros(0)
    with torch.no_grad():
        return np.asarray(torch.stack([p.detach().double().sum().cpu() for p in small]).numpy(), np.float64)


class StatisticsReader:
    """Reads the running statistics of all layers in one copy from the device."""

    def __init__(self, layers: Sequence[TorchLayer], rank_means: Sequence[Any] = ()):
        self._modules, self._rank_means = [t.module for t in layers], rank_means
        self._names = [t.name for t in layers]

    def read(self) -> Snapshot:
        """The running statistics now, as copies.

        Raises:
            NotRecorded: a module has none any more.
        """
        # The buffers are looked up each time: load_state_dict(assign=True) and .to() replace them.
        means, variances, counts = (
            [parts.value_of(m, name) for m in self._modules]
            for name in ("running_mean", "running_var", "num_batches_tracked")
        )
        lost = [mean is None or variance is None for mean, variance in zip(means, variances, strict=True)]
        if any(lost):
            raise NotRecorded(
                f"module {self._names[lost.index(True)]!r} has no running statistics any more (running_mean is None), "
                "as after torch.func.replace_all_batch_norm_modules_; make another recorder behind that"
            )
        with torch.no_grad():
            flat = torch.cat([p if p.dim() == 1 else p.reshape(-1) for p in (*means, *variances)]).float().cpu().numpy()
            counted = torch.stack(counts).cpu().numpy()
        half = len(flat) // 2
        ranks = np.stack(self._rank_means) if self._rank_means else None
        return Snapshot(flat[:half], flat[half:], ranks, counted.astype(np.int64))
