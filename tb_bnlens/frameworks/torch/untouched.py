"""Run a model an extra time so that nothing of it is left: modes, buffers, attributes, random state, caches."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
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
            module.training = mode
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


@contextlib.contextmanager
def attributes(model: Any) -> Iterator[None]:
    """Put back what a forward pass sets on its modules, such as a counter or a tensor that is kept for later."""
    before = [(module, dict(module.__dict__)) for module in model.modules()]
    try:
        yield
    finally:
        for module, kept in before:
            now = module.__dict__
            if now.keys() != kept.keys() or any(now[name] is not value for name, value in kept.items()):
                now.clear()
                now.update(kept)


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
    """Autocast as it is around the call, but with a cache of its own.

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
def untouched(model: Any) -> Iterator[None]:
    """All of these, without gradients, and with compiled parts run eagerly: they would be compiled again."""
    devices = {t.device for t in (*model.parameters(), *model.buffers())}
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(random_state(devices))
        stack.enter_context(own_precision(devices))
        stack.enter_context(attributes(model))
        if hasattr(torch.compiler, "set_stance"):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield
