"""Run a model an extra time so that nothing of it is left: modes, buffers, attributes, random state, caches."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch


@contextlib.contextmanager
def modes(given: Mapping[Any, bool]) -> Iterator[None]:
    """Let modules be in training mode or not within the block.

    The flags are set as such. ``train()`` and ``eval()`` may be overridden and do more: merge weights, or freeze some.
    """
    before = {module: module.training for module in given}
    try:
        for module, mode in given.items():
            vars(module)["training"] = mode
        yield
    finally:
        for module, mode in before.items():
            vars(module)["training"] = mode


@contextlib.contextmanager
def attributes(modules: Sequence[Any]) -> Iterator[None]:
    """Put back what a forward pass sets on modules, such as a counter or a tensor that is kept for later."""
    # Values are compared by identity: tensors have no truth value, and comparing them would take long.
    before = [(vars(m), vars(m).copy(), list(map(id, vars(m).values()))) for m in modules]
    try:
        yield
    finally:
        for now, kept, ids in before:
            if list(map(id, now.values())) != ids:
                now.clear()
                now.update(kept)


@contextlib.contextmanager
def cloned_buffers(modules: Sequence[Any]) -> Iterator[None]:
    """Let modules have clones of their buffers within the block, which writes to those alone.

    ``torch.func.functional_call`` does the same in six times the time, most of it in looking for shared tensors.
    """
    clones: dict[int, Any] = {}
    before = [(module, module._buffers) for module in modules if module._buffers]
    try:
        for module, buffers in before:
            own = {
                name: b if b is None else clones.setdefault(id(b), b.detach().clone()) for name, b in buffers.items()
            }
            vars(module)["_buffers"] = own
        yield
    finally:
        for module, buffers in before:
            vars(module)["_buffers"] = buffers


@contextlib.contextmanager
def random_state(devices: set[torch.device]) -> Iterator[None]:
    """Put back every global random state: of PyTorch on the CPU and on these devices, of NumPy and of Python."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=[]))
            for device in devices:
                if device.type != "cpu" and getattr(torch, device.type, None) is not None:
                    stack.enter_context(torch.random.fork_rng(devices=[device], device_type=device.type))
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


@contextlib.contextmanager
def own_precision(devices: set[torch.device]) -> Iterator[None]:
    """Autocast as around the call, but with its own cache.

    Within one ``autocast`` block weights are cast once. What is cast here has no gradient, and the next step of
    training would be made on it.
    """
    with contextlib.ExitStack() as stack:
        for kind in {"cpu", *(device.type for device in devices)}:
            if torch.is_autocast_enabled(kind):
                dtype = torch.get_autocast_dtype(kind)
                stack.enter_context(torch.autocast(kind, dtype=dtype, cache_enabled=False))
        if any(device.type == "cuda" for device in devices):
            # A shape that is new to the benchmark would be timed, and the choice kept for training.
            stack.enter_context(torch.backends.cudnn.flags(benchmark=False))
        yield


@contextlib.contextmanager
def untouched(given: Mapping[Any, bool]) -> Iterator[None]:
    """All of these, without gradients, and with compiled parts run eagerly: they would be compiled again.

    Args:
        given: every module in it, and whether it is in training mode within the block.
    """
    modules = list(given)
    devices = {p.device for m in modules for p in (*m._parameters.values(), *m._buffers.values()) if p is not None}
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(random_state(devices))
        stack.enter_context(own_precision(devices))
        stack.enter_context(attributes(modules))
        stack.enter_context(cloned_buffers(modules))
        stack.enter_context(modes(given))
        if hasattr(torch.compiler, "set_stance"):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield
