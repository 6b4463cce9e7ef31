"""What Python code reads: the globals of a function, and the functions of a class."""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

CALLED = ("forward", "call", "__call__", "__get__", "compute_loss")
"""Methods with which a pass enters an object."""
MAKE_OBJECTS = ("__init__", "__new__", "__post_init__", "__init_subclass__")
"""A pass makes few objects of a user's, while many classes number theirs with a global counter."""


BY_NAME = frozenset("__dict__ __import__ delattr getattr globals import_module modules setattr vars".split())
"""Code that names one of these may read or assign by a string that it holds."""


@dataclass(frozen=True)
class Reads:
    """Names in the code of a function and of those defined in it."""

    globals: tuple[str, ...]
    stored: frozenset[str]
    """Those of the globals that the code assigns."""
    attributes: frozenset[str]
    assigned: frozenset[str]
    """Those of the attributes that the code assigns or deletes."""
    imports: frozenset[str]
    """Modules that the code imports when it runs; what it takes from them is among the attributes."""


@functools.lru_cache(maxsize=4096)
def reads(code: types.CodeType, start: int = 0) -> Reads:
    """What a piece of code reads, from this offset on."""
    names: dict[str, None] = {}
    stored: set[str] = set()
    attributes: set[str] = set()
    assigned: set[str] = set()
    imports: set[str] = set()
    strings: set[str] = set()
    for instruction in dis.get_instructions(code):
        if instruction.offset < start:
            continue
        if instruction.opname in ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL"):
            names[instruction.argval] = None
            if instruction.opname != "LOAD_GLOBAL":
                stored.add(instruction.argval)
        elif instruction.opname == "IMPORT_NAME":
            imports.add(str(instruction.argval))
        elif instruction.opname == "IMPORT_FROM" or "ATTR" in instruction.opname or instruction.opname == "LOAD_METHOD":
            attributes.add(str(instruction.argval))
            if instruction.opname in ("STORE_ATTR", "DELETE_ATTR"):
                assigned.add(str(instruction.argval))
        elif isinstance(instruction.argval, str) and "CONST" in instruction.opname:
            strings.add(instruction.argval)
        elif isinstance(instruction.argval, types.CodeType):
            of_inner = reads(instruction.argval)
            names.update(dict.fromkeys(of_inner.globals))
            stored |= of_inner.stored
            attributes |= of_inner.attributes
            assigned |= of_inner.assigned
            imports |= of_inner.imports
    if not BY_NAME.isdisjoint(attributes | names.keys()):
        words = {string for string in strings if string.isidentifier()}
        attributes |= words
        if "globals" in names:
            names.update(dict.fromkeys(words))
            stored |= words
        imports |= strings
    return Reads(tuple(names), frozenset(stored), frozenset(attributes), frozenset(assigned), frozenset(imports))


@functools.lru_cache(maxsize=4096)
def functions_of(cls: type) -> tuple[Any, ...]:
    """The functions of a class, static and class methods and properties included, constructors left out."""
    return tuple(function for _, function in _named_functions(cls))


def constructors_of(cls: type) -> list[Any]:
    """The functions of a class that run when it is called."""
    return [function for name in MAKE_OBJECTS if isinstance(function := vars(cls).get(name), types.FunctionType)]


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
        for name, function in _named_functions(cls):
            own.setdefault(name, []).append(function)
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


@functools.lru_cache(maxsize=4096)
def _named_functions(cls: type) -> tuple[tuple[str, Any], ...]:
    return tuple(_functions(cls))


def _functions(cls: type) -> Iterator[tuple[str, Any]]:
    for name, value in vars(cls).items():
        if name in MAKE_OBJECTS or isinstance(value, type):
            continue
        for attribute in ("__func__", "fget", "func"):  # staticmethod and classmethod, property, cached_property
            value = getattr(value, attribute, value)
        # A decorator may be an object that holds the function, or a function with the other one in __wrapped__.
        for held in (value, *getattr(value, "__dict__", {}).values()):
            if isinstance(held, types.FunctionType):
                yield name, held
