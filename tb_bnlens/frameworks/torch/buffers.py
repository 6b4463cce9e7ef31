"""Clones of buffers for a pass to write to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from tb_bnlens.frameworks.torch import parts
from tb_bnlens.frameworks.torch.writes import unseen


@contextlib.contextmanager
def cloned_buffers(modules: Sequence[Any]) -> Iterator[None]:
    """Let modules have clones of their buffers within the block, which writes to those alone.

    ``torch.func.functional_call`` does the same in six times the time, most of it in looking for shared tensors.
    """
    before = [(module, buffers) for module in modules if (buffers := parts.held_by(module)["_buffers"])]
    clones = _clones([b for _, buffers in before for b in buffers.values() if b is not None])
    try:
        for module, buffers in before:
            parts.held_by(module)["_buffers"] = {name: clones.get(id(b)) for name, b in buffers.items()}
        yield
    finally:
        for module, buffers in before:
            parts.held_by(module)["_buffers"] = buffers


def _clones(tensors: Iterable[Any]) -> dict[int, Any]:
    """The clone of each tensor, by its id. Those of a kind are copied at once, into neighbouring memory."""
    kinds: dict[Any, dict[int, Any]] = {}
    for tensor in tensors:
        kinds.setdefault(_kind_of(tensor), {})[id(tensor)] = tensor
    clones: dict[int, Any] = {}
    for kind, alike in kinds.items():
        with unseen(*alike.values()):
            copies = [t.detach().clone() for t in alike.values()] if kind is None else _copied(list(alike.values()))
        clones.update(zip(alike, copies, strict=True))
    return clones


def _kind_of(tensor: Any) -> Any:
    """What tensors have in common that can be copied at once; None where one cannot."""
    dense = type(tensor) is torch.Tensor and tensor.layout == torch.strided and tensor.is_contiguous()
    usual = not (tensor.is_quantized or tensor.is_nested or tensor.is_inference() or torch.is_inference_mode_enabled())
    return (tensor.dtype, tensor.device) if dense and usual else None


def _copied(tensors: Sequence[Any]) -> list[Any]:
    with torch.no_grad():
        flat = torch.cat([t if t.dim() == 1 else t.reshape(-1) for t in tensors])
        # Each has its own version: autograd must not take a write to one for a write to all.
        pieces = torch.unsafe_split_with_sizes(flat, [t.numel() for t in tensors])
        return [x if t.dim() == 1 else x.view(t.shape) for x, t in zip(pieces, tensors, strict=True)]
