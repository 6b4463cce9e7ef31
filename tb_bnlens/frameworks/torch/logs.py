"""Loggers and modules that write in the user's log, which an extra pass must not."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tb_bnlens.frameworks.torch import parts
from tb_bnlens.frameworks.torch.swapped import swap

LOGGERS = (
    ("torch.utils.tensorboard.writer", "SummaryWriter", ("add_",)),
    ("tensorboardX.writer", "SummaryWriter", ("add_",)),
    ("wandb.sdk.wandb_run", "Run", ("log", "_log")),
)
"""Module, class and how the names of its methods begin that write in the user's log."""
LIGHTNING = frozenset({"lightning", "pytorch_lightning"})
LOG = "log"
"""The method of a ``LightningModule``; ``log_dict`` calls it."""


@contextlib.contextmanager
def unlogged(modules: Iterable[Any]) -> Iterator[None]:
    """Let modules of Lightning log nothing in the block: by what they log, training stops or goes slower."""
    here = not sys.modules.keys().isdisjoint(LIGHTNING)
    logging = [module for module in modules if _logs(type(module))] if here else []
    before = [parts.held_by(module).get(LOG) for module in logging]
    try:
        for module in logging:
            parts.held_by(module)[LOG] = _ignored
        yield
    finally:
        for module, own in zip(logging, before, strict=True):
            parts.held_by(module)[LOG] = own
            if own is None:
                del parts.held_by(module)[LOG]


def _logs(kind: Any) -> bool:
    classes = [cls for cls in kind.__mro__ if cls.__name__ == "LightningModule"]
    return any(cls.__module__.partition(".")[0] in LIGHTNING for cls in classes)


@contextlib.contextmanager
def silent_loggers() -> Iterator[None]:
    """Let ``LOGGERS`` write nothing in the block: a curve would get a point for each pass."""
    with contextlib.ExitStack() as stack:
        for module, name, prefixes in LOGGERS:
            cls = getattr(sys.modules.get(module), name, None)
            for method in [m for m in vars(cls) if m.startswith(prefixes)] if isinstance(cls, type) else ():
                swap(stack, cls, method, _ignored)
        yield


def _ignored(*_: Any, **__: Any) -> None:
    pass
