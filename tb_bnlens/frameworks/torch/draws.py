"""Draw from a copy of PyTorch's global generator where another thread may draw from the generator itself."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tb_bnlens.capture.errors import NotEvaluated

DRAWS = (
    "the model or loss draws random numbers by {name} while another thread runs, so an extra pass could change the "
    "numbers that training gets; draw them from a torch.Generator of the module's own to have the losses measured"
)


class DrawsApart(TorchDispatchMode):  # type: ignore[misc]
    """In the block, operations of this thread draw the numbers that the global generator of the CPU would give next.

    Raises:
        NotEvaluated: an operation can draw from the global generator alone; it is not run.
    """

    def __init__(self) -> None:
        super().__init__()
        self._generator = torch.Generator().set_state(torch.get_rng_state())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        draws = torch.Tag.nondeterministic_seeded in getattr(func, "tags", ())
        if draws and kwargs.get("generator") is None and _on_cpu(args, kwargs):
            return _drawn_from(self._generator, func, args, kwargs)
        return func(*args, **kwargs)


def _on_cpu(args: Any, kwargs: Mapping[str, Any]) -> bool:
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    device = kwargs.get("device")
    kinds = {tensor.device.type for tensor in tensors} or {torch.device(device or torch.get_default_device()).type}
    return kinds == {"cpu"}


def _drawn_from(generator: torch.Generator, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The result of an operation that draws from this generator in place of the global one.

    Raises:
        NotEvaluated: there is no such operation.
    """
    other = _with_generator(func)
    if other is not None:
        return other(*args, **{**kwargs, "generator": generator})
    like = {"rand_like": "uniform_", "randn_like": "normal_"}.get(func._schema.name.rpartition("::")[2])
    if like is None:
        raise NotEvaluated(DRAWS.format(name=func._schema.name))
    return getattr(torch.empty_like(*args, **kwargs), like)(generator=generator)


@functools.cache
def _with_generator(func: Any) -> Any:
    """The operation itself or its overload that takes a generator besides; None where there is none."""
    names = [argument.name for argument in func._schema.arguments]
    if "generator" in names:
        return func
    packet = func.overloadpacket
    for overload in (getattr(packet, name) for name in packet.overloads()):
        own = [argument.name for argument in overload._schema.arguments]
        if "generator" in own and [name for name in own if name != "generator"] == names:
            return overload
    return None
