"""What Python code reads: the globals of a function, and the functions of a class."""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

CALLED = ("forward", "call", "__call__", "compute_loss")
"""Methods with which a pass enters an object."""
MAKE_OBJECTS = ("__init__", "__new__", "__post_init__", "__init_subclass__")
"""A pass makes few objects of a user's, while many classes number theirs with a global counter."""


@dataclass(frozen=True)
class Reads:
    """Names in the code of a function and of those defined in it."""

    globals: tuple[str, ...]
    stored: frozenset[str]
    """Those of the globals that the code assigns."""
    attributes: frozenset[str]
    imports: frozenset[str]
    """Modules that the code imports when it runs; what it takes from them is among the attributes."""


@functools.lru_cache(maxsize=4096)
def reads(code: types.CodeType) -> Reads:
    """What a piece of code reads."""
    names: dict[str, None] = {}
    stored: set[str] = set()
    attributes: set[str] = set()
    imports: set[str] = set()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL"):
            names[instruction.argval] = None
            if instruction.opname != "LOAD_GLOBAL":
                stored.add(instruction.argval)
        elif instruction.opname == "IMPORT_NAME":
            imports.add(str(instruction.argval))
        elif instruction.opname == "IMPORT_FROM" or "ATTR" in instruction.opname or instruction.opname == "LOAD_METHOD":
            attributes.add(str(instruction.argval))
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            of_inner = reads(inner)
            names.update(dict.fromkeys(of_inner.globals))
            stored |= of_inner.stored
            attributes |= of_inner.attributes
            imports |= of_inner.imports
    return Reads(tuple(names), frozenset(stored), frozenset(attributes), frozenset(imports))


@functools.lru_cache(maxsize=4096)
def functions_of(cls: type) -> tuple[Any, ...]:
    """The functions of a class, static and class methods and properties included, constructors left out."""
    return tuple(_functions(cls))


@functools.lru_cache(maxsize=4096)
def functions_called(kind: type, classes: tuple[type, ...]) -> tuple[Any, ...]:
    """The functions of an object's classes that may run when it is called.

    Args:
        kind: the object's class.
        classes: it and its base classes, those of a user's alone; a base class may call what another class defines.

    Returns:
        What ``CALLED`` reaches by name. Where a framework's class is called, what it may call in turn: the functions
        that it defines too. All, where the object cannot be called or looks for methods at run time.
    """
    own: dict[str, list[Any]] = {}
    for cls in classes:
        for function in functions_of(cls):
            own.setdefault(function.__name__, []).append(function)
    waiting, met = [name for name in CALLED if name in own], set[str]()
    if not waiting:
        framework = {name for cls in kind.__mro__[:-1] if cls not in classes for name in vars(cls)}
        if framework.intersection(CALLED):
            waiting = [name for name in own if name in framework and not name.endswith("_dataloader")]
            if not waiting:
                return ()
    found: list[Any] = []
    while waiting:
        name = waiting.pop()
        if name in met:
            continue
        met.add(name)
        found += own[name]
        named = [reads(function.__code__) for function in own[name]]
        if any("getattr" in names.globals for names in named):
            break
        waiting += {attribute for names in named for attribute in names.attributes} & own.keys()
    else:
        if found:
            return tuple(found)
    return tuple(function for functions in own.values() for function in functions)


@functools.lru_cache(maxsize=4096)
def attributes_read(cls: type) -> frozenset[str]:
    """Names of attributes that these functions read or assign, of whatever object."""
    return frozenset[str]().union(*(reads(function.__code__).attributes for function in functions_of(cls)))


def _functions(cls: type) -> Iterator[Any]:
    for name, value in vars(cls).items():
        if name in MAKE_OBJECTS:
            continue
        for attribute in ("__func__", "fget", "func"):  # staticmethod and classmethod, property, cached_property
            value = getattr(value, attribute, value)
        if isinstance(value, types.FunctionType):
            yield value
