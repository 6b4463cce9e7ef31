"""What PyTorch keeps for the whole process or thread: random state, precision, caches, settings."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.nn.utils import parametrize

from tb_bnlens.capture.noted import restore_all
from tb_bnlens.capture.randomness import draws_undone, others_may_draw
from tb_bnlens.capture.walk import Walk
from tb_bnlens.frameworks.torch.draws import DrawsApart

AUTOCAST = ("cpu", "cuda")
"""Kinds of devices whose autocast a pass may switch."""


@contextlib.contextmanager
def random_state(devices: set[torch.device], walk: Walk | None = None) -> Iterator[None]:
    """Undo draws from every global generator: of PyTorch on the CPU and on these devices, of NumPy and of Python.

    Args:
        devices: those.
        walk: what is known of the block.

    Raises:
        NotEvaluated: the block draws from a generator that another thread may draw from, and that cannot be undone.
    """
    apart = others_may_draw()
    with contextlib.ExitStack() as stack:
        stack.enter_context(draws_undone(apart, walk is None or walk.may_draw, walk is not None and walk.may_wait))
        stack.enter_context(DrawsApart() if apart else torch.random.fork_rng(devices=[]))
        for device in devices:
            if device.type != "cpu" and getattr(torch, device.type, None) is not None:
                stack.enter_context(torch.random.fork_rng(devices=[device], device_type=device.type))
        yield


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
        stack.enter_context(_own_parametrizations())
        if any(device.type == "cuda" for device in devices):
            # A shape that is new to the benchmark would be timed, and the choice kept for training.
            stack.enter_context(torch.backends.cudnn.flags(benchmark=False))
        yield


@contextlib.contextmanager
def _own_parametrizations() -> Iterator[None]:
    """Weights as ``torch.nn.utils.parametrize`` makes them: what is cached here has no gradient either."""
    cached, parametrize._cache = parametrize._cache, {}
    try:
        yield
    finally:
        parametrize._cache = cached


def _flushes(tiny: float = 5e-324) -> bool:
    """Whether this thread takes numbers for zero that are too small for all digits."""
    return tiny * 1.0 == 0.0


SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_num_threads, torch.set_num_threads),
    (_flushes, torch.set_flush_denormal),
    (torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        lambda kept: torch.use_deterministic_algorithms(kept[0], warn_only=kept[1]),
    ),
    (lambda: torch.backends.cudnn.benchmark, partial(setattr, torch.backends.cudnn, "benchmark")),
    (lambda: torch.backends.cudnn.deterministic, partial(setattr, torch.backends.cudnn, "deterministic")),
    *((partial(torch.is_autocast_enabled, kind), partial(torch.set_autocast_enabled, kind)) for kind in AUTOCAST),
    *((partial(torch.get_autocast_dtype, kind), partial(torch.set_autocast_dtype, kind)) for kind in AUTOCAST),
)
"""What holds for the whole process or thread, and how it is set. Not the precision of matrix products: where the user
has set it for one backend, reading that of all raises."""


@contextlib.contextmanager
def settings_undone() -> Iterator[None]:
    """Undo what the block sets for all code, such as the default type of tensors."""
    before = [get() for get, _ in SETTINGS]
    try:
        yield
    finally:
        now = [get() for get, _ in SETTINGS]
        if now != before:
            changed = zip(SETTINGS, before, now, strict=True)
            restore_all("a setting", [partial(put, then) for (_, put), then, since in changed if then != since])
