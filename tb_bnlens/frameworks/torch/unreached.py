"""Normalization by the batch that ``model.eval()`` does not reach, and modules whose statistics are not read."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.overrides import TorchFunctionMode

from tb_bnlens.frameworks.torch import parts

BY_BATCH = (torch.nn.functional.batch_norm, torch.batch_norm)
TRAINING = 5
"""Position of the argument ``training`` of both."""
SHOWN = 3


class UnreachedCalls(TorchFunctionMode):  # type: ignore[misc]
    """Takes note of each call of ``batch_norm`` that normalizes by the batch, and of whose call it is.

    Calls of BatchNorm modules that are part of the model are left out: their mode and statistics are known.

    Args:
        model: runs within the block, in eval mode.
    """

    def __init__(self, model: Any):
        super().__init__()
        self._model = model
        self._paths = {module: path for path, module in parts.named_modules(model)}
        self.names: dict[str, None] = {}
        """What the calls are told by, in order, each once."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, and look at its arguments."""
        kwargs = kwargs or {}
        if func in BY_BATCH and (kwargs.get("training", args[TRAINING] if len(args) > TRAINING else False)):
            name = self._name(inspect.currentframe())
            if name:
                self.names[name] = None
        return func(*args, **kwargs)

    def _name(self, frame: FrameType | None) -> str:
        """Of the innermost module on the stack; empty for a BatchNorm module of the model."""
        callers = [m for m in _selves(frame) if issubclass(type(m), torch.nn.Module)]
        if not callers:
            return "batch_norm"
        inner, within = callers[0], next((m for m in callers if m in self._paths), self._model)
        if inner in self._paths:
            return "" if isinstance(inner, _BatchNorm) else f"batch_norm in {self._class(inner)}.forward"
        held = next((name for name, module in _held(self._paths) if module is inner), None)
        return held or f"{type(inner).__name__} made in {self._class(within)}.forward"

    @staticmethod
    def _class(module: Any) -> str:
        return type(module).__name__


def _selves(frame: FrameType | None) -> Iterator[Any]:
    while frame is not None:
        if "self" in frame.f_locals:
            yield frame.f_locals["self"]
        frame = frame.f_back


def _held(paths: Mapping[Any, str]) -> Iterator[tuple[str, Any]]:
    """Modules in plain containers that are attributes of modules, as ``path.attribute[key]``."""
    for module, path in paths.items():
        for attribute, value in parts.held_by(module).items():
            if attribute.startswith("_") or not isinstance(value, list | tuple | dict):
                continue
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                yield f"{path}.{attribute}[{key!r}]".removeprefix("."), item


def not_read(model: Any) -> tuple[str, ...]:
    """Sentences on modules that keep running statistics, or hide them, and are not recorded."""
    if issubclass(type(model), torch.jit.ScriptModule):
        return (
            "The model is compiled by torch.jit, which hides its modules. Record the module that it was made from: "
            "torch.jit.script shares its parameters and statistics.",
        )
    own = {
        path or type(module).__name__: type(module).__name__
        for path, module in parts.named_modules(model)
        if not issubclass(type(module), (_BatchNorm, _InstanceNorm))
        and any(
            isinstance(b, torch.Tensor) and _is_statistic(name) for name, b in parts.held_by(module)["_buffers"].items()
        )
    }
    if not own:
        return ()
    shown = ", ".join(f"{path} ({kind})" for path, kind in list(own.items())[:SHOWN])
    more = f" and {len(own) - SHOWN} more" if len(own) > SHOWN else ""
    return (
        f"Modules of other classes keep running statistics: {shown}{more}. Those are not recorded; BN Lens reads "
        "torch.nn.BatchNorm and classes derived from it.",
    )


def _is_statistic(name: str) -> bool:
    return "running" in name or "moving" in name
