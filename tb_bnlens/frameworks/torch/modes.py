"""Which modules are in training mode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from tb_bnlens.capture.still import found_once
from tb_bnlens.frameworks.torch import parts


@contextlib.contextmanager
def modes(given: Mapping[Any, bool]) -> Iterator[None]:
    """Let modules be in training mode or not within the block.

    The flags are set as such. ``train()`` and ``eval()`` may be overridden and do more: merge weights, or freeze some.
    """
    held = [(parts.held_by(module), mode) for module, mode in given.items()]
    plain = [(own, mode) for own, mode in held if "training" in own]
    before = [own["training"] for own, _ in plain]
    # A property of the class, or a flag in C++.
    others = [module for module, (own, _) in zip(given, held, strict=True) if "training" not in own]
    others_before = [parts.value_of(module, "training") for module in others]
    try:
        for own, mode in plain:
            own["training"] = mode
        for module in others:
            _set_mode(module, given[module])
        yield
    finally:
        for (own, _), mode in zip(plain, before, strict=True):
            own["training"] = mode
        for module, mode in zip(others, others_before, strict=True):
            _set_mode(module, mode)
            parts.held_by(module).pop("training", None)


def _set_mode(module: Any, mode: bool) -> None:
    if not issubclass(type(module), torch.jit.ScriptModule):
        parts.held_by(module)["training"] = mode
    elif module._c.hasattr("training"):
        module._c.setattr("training", mode)


def modules_once(model: Any) -> list[Any]:
    """A module and all in it; looked for once in a measurement, whose passes put them back."""
    return found_once(parts.modules, model)


def modes_of(model: Any) -> dict[Any, bool]:
    """Every module and whether it is in training mode."""
    return {module: parts.value_of(module, "training") for module in modules_once(model)}
