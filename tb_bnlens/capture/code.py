"""What Python code reads: the globals of a function, and the functions of a class that a call of its objects runs."""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

CALLED = ("forward", "call", "__call__", "compute_loss")
"""Methods with which a pass enters an object."""


@dataclass(frozen=True)
class Reads:
    """Names in the code of a function and of those defined in it."""

    globals: tuple[str, ...]
    stored: frozenset[str]
    """Those of the globals that the code assigns."""
    attributes: frozenset[str]


@functools.lru_cache(maxsize=4096)
def reads(code: types.CodeType) -> Reads:
    """What a piece of code reads."""
    names: dict[str, None] = {}
    stored: set[str] = set()
    attributes: set[str] = set()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL"):
            names[instruction.argval] = None
            if instruction.opname != "LOAD_GLOBAL":
                stored.add(instruction.argval)
        elif "ATTR" in instruction.opname or instruction.opname == "LOAD_METHOD":
            attributes.add(str(instruction.argval))
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            of_inner = reads(inner)
            names.update(dict.fromkeys(of_inner.globals))
            stored |= of_inner.stored
            attributes |= of_inner.attributes
    return Reads(tuple(names), frozenset(stored), frozenset(attributes))


def functions_called(cls: type) -> list[Any]:
    """The functions of a class that may run when one of its objects is called; all, where it cannot be called."""
    own = {name: function for name, function in _functions(cls)}
    waiting = [name for name in CALLED if name in own] or list(own)
    found: dict[str, Any] = {}
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = own[name]
            waiting += own.keys() & reads(own[name].__code__).attributes
    return list(found.values())


def _functions(cls: type) -> Iterator[tuple[str, Any]]:
    for name, value in vars(cls).items():
        for attribute in ("__func__", "fget", "func"):  # staticmethod and classmethod, property, cached_property
            value = getattr(value, attribute, value)
        if isinstance(value, types.FunctionType):
            yield name, value
