"""What a module holds, read without code of the user's: methods and attributes may be overridden, and count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch


def held_by(module: Any) -> dict[str, Any]:
    """The attributes of a module."""
    found: dict[str, Any] = object.__getattribute__(module, "__dict__")
    return found


def value_of(module: Any, name: str) -> Any:
    """An attribute, parameter or buffer of a module; what its class makes of the name where it holds none."""
    own = held_by(module)
    if name in own:
        return own[name]
    for kind in ("_buffers", "_parameters"):
        space = own.get(kind)
        if space and name in space:
            return space[name]
    return getattr(module, name)


def named_modules(model: Any) -> Iterator[tuple[str, Any]]:
    """A module and all in it, each once, as ``torch.nn.Module.named_modules`` gives them."""
    met, waiting = set[int](), [("", model)]
    while waiting:
        path, module = waiting.pop()
        if module is None or id(module) in met:
            continue
        met.add(id(module))
        yield path, module
        children = _table(module, "_modules")
        waiting += [(f"{path}.{name}" if path else name, child) for name, child in reversed(list(children.items()))]


def modules(model: Any) -> list[Any]:
    """A module and all in it, in the same order."""
    met, waiting = dict[int, Any](), [model]
    while waiting:
        module = waiting.pop()
        if module is not None and id(module) not in met:
            met[id(module)] = module
            waiting += reversed(list(_table(module, "_modules").values()))
    return list(met.values())


def own_tensors(module: Any, kind: str) -> list[Any]:
    """The ``_parameters`` or ``_buffers`` of one module that are no None."""
    return [tensor for _, tensor in _table(module, kind).items() if tensor is not None]


def parameters(model: Any) -> list[Any]:
    """All parameters of a module, each once."""
    found = (tensor for module in modules(model) for tensor in own_tensors(module, "_parameters"))
    return list({id(tensor): tensor for tensor in found}.values())


def _table(module: Any, name: str) -> Any:
    # That of a scripted module is in C++, and a traced one asks another one for it.
    return getattr(module, name) if issubclass(type(module), torch.jit.ScriptModule) else held_by(module)[name]
