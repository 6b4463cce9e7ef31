"""How objects are walked: a user's objects and classes, functions and the modules that they name."""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
import threading
import types
import weakref
from collections import ChainMap, UserDict, UserList
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

from tb_bnlens.capture.code import (
    Reads,
    attributes_read,
    constructors_of,
    functions_of,
    own_classes,
    reads,
    slots_of,
)
from tb_bnlens.capture.containers import CONTAINERS
from tb_bnlens.capture.files import reach_open, visit_open
from tb_bnlens.capture.library import keep_slot, reach_for_good, refuse_threads, visit_for_good, visit_module
from tb_bnlens.capture.noted import Place
from tb_bnlens.capture.packages import is_closed, is_of_closed, is_of_library, may_draw
from tb_bnlens.capture.walk import Visit, Walk

JOINS = frozenset("Executor Pool ThreadPoolExecutor join result shutdown wait".split())
"""Names in code that waits for the end of the threads that it starts."""


def visit_both(visit: Visit, walk: Walk, thing: Any) -> None:
    """A user's subclass of a container has attributes too."""
    visit(walk, thing)
    visit_object(walk, thing)


def visit_part(walk: Walk, thing: Any) -> None:
    """A framework's own module or layer: its class holds nothing that changes, but for what users patch into it."""
    walk.part(vars(thing))
    _visit_patched(walk, thing)


def visit_own_part(walk: Walk, thing: Any) -> None:
    """A user's module or layer."""
    walk.part(object.__getattribute__(thing, "__dict__"))
    _visit_code(walk, thing)
    _visit_patched(walk, thing)


def _visit_patched(walk: Walk, thing: Any) -> None:
    if walk.is_first_of_kind(thing):
        for cls in type(thing).__mro__:
            if is_closed(cls):
                walk.then(thing, *patched(cls))


def patched(holder: Any) -> list[Any]:
    """Functions of a user's that a class or module of a closed package has instead of its own."""
    held = [getattr(value, "__func__", value) for value in list(vars(holder).values())]
    return [function for function in held if type(function) is types.FunctionType and not _is_closed_code(function)]


def _is_closed_code(function: Any) -> bool:
    """Whether a function is of a closed package: ``functools.wraps`` gives it the module of the one that it wraps."""
    return is_closed(function) and is_of_closed(function.__globals__.get("__name__"))


def visit_object(walk: Walk, thing: Any) -> None:
    """Attributes and slots of a user's object, and what its class and methods reach."""
    with contextlib.suppress(AttributeError):
        own = object.__getattribute__(thing, "__dict__")  # which an object's own way to find attributes may count
        if type(own) is dict:
            walk.dictionary(own)
    _visit_code(walk, thing)


def _visit_attributes(walk: Walk, thing: Any) -> None:
    walk.dictionary(vars(thing))


def _visit_code(walk: Walk, thing: Any) -> None:
    kind: Any = type(thing)
    walk.kind(thing)
    walk.then(thing, *walk.functions_of(thing))
    for cls in own_classes(kind):
        if walk.is_new(cls):
            _keep_class(walk, cls)
        for slot in slots_of(cls):
            keep_slot(walk, thing, slot, slot.__name__)


def _visit_class(walk: Walk, cls: Any) -> None:
    """A user's class that code names: it may call any function of it."""
    if not is_closed(cls):
        walk.then(cls, *functions_of(cls))
        for function in constructors_of(cls):  # it may number new objects, which is no reason against a pass
            walk.later(_visit_function, function)
        if walk.is_new(cls):
            _keep_class(walk, cls)


def _keep_class(walk: Walk, cls: Any) -> None:
    """Attributes of a user's class, where counters and tables may be kept."""
    before = {name: value for name, value in vars(cls).items() if not name.startswith("__")}
    read = attributes_read(cls)
    for name, value in before.items():
        # An iterator that only makes names for new objects is left alone.
        if not isinstance(value, (types.FunctionType, type)) and (name in read or not isinstance(value, Iterator)):
            walk.reach(Place(name, partial(vars(cls).__getitem__, name), partial(type.__setattr__, cls, name)))

    def restore() -> None:
        now = dict(vars(cls))
        for name in now.keys() - before.keys():
            if not name.startswith("__"):
                type.__delattr__(cls, name)
        for name, value in before.items():
            if name not in now or now[name] is not value:
                type.__setattr__(cls, name, value)

    walk.keep(restore)


def _visit_function(walk: Walk, function: Any) -> None:
    if _is_closed_code(function) if isinstance(function, types.FunctionType) else is_closed(function):
        if visit_for_good(walk, function) or visit_open(walk, function):
            return
        visit_module(walk, function.__module__)
        if is_of_library(function):  # a registry of functools.singledispatch is in a closure
            walk.then(function, *(function.__closure__ or ()))
        return
    walk.then(function, *(function.__closure__ or ()), *(function.__defaults__ or ()))
    walk.dictionary(function.__kwdefaults__ or {})
    walk.dictionary(function.__dict__)
    space, names = function.__globals__, reads(function.__code__)
    walk.joins = walk.joins or not JOINS.isdisjoint(names.attributes | names.globals.keys())
    if "start" in names.attributes and walk.is_new(JOINS):
        refuse_threads(walk)
    # Code that sleeps may do so until another thread has done something.
    walk.may_wait = walk.may_wait or "sleep" in names.attributes or "sleep" in names.globals
    for name in names.globals:
        if name in space:
            walk.reach(Place(name, partial(space.__getitem__, name), partial(space.__setitem__, name)))
            walk.may_draw = walk.may_draw or may_draw(getattr(space[name], "__module__", None))
            _keep_in_module(walk, space[name], names)
    for name in names.imports:
        _keep_in_module(walk, sys.modules.get(name), names)
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # nothing yet
            _keep_in_module(walk, cell.cell_contents, names)
    for name in names.stored:
        walk.variable(space, name)
    reach_open(walk, names)


def _keep_in_module(walk: Walk, module: Any, names: Reads) -> None:
    """What code may reach, or assign, as ``module.name`` or ``package.module.name``.

    Of a module or class that is no user's only what the code assigns, as where it patches one.
    """
    waiting, met = [module], set[int]()
    while waiting:
        module = waiting.pop()
        kind = type(module)
        if id(module) in met or not (kind is types.ModuleType or (issubclass(kind, type) and is_closed(module))):
            continue
        met.add(id(module))
        space = vars(module)
        visit_module(walk, space.get("__name__"))
        reach_for_good(walk, space, names.attributes)
        if kind is not types.ModuleType:
            for name in names.assigned:
                _keep_patched(walk, module, name)
            continue
        for name in names.assigned if is_of_closed(module.__name__) else names.attributes & space.keys():
            walk.variable(space, name)
        waiting += [space[name] for name in names.attributes & space.keys()]


def _keep_patched(walk: Walk, cls: Any, name: str) -> None:
    put, drop = partial(type.__setattr__, cls, name), partial(type.__delattr__, cls, name)
    walk.place(Place(name, partial(vars(cls).__getitem__, name), put, drop))


def _visit_cell(walk: Walk, cell: Any) -> None:
    keep_slot(walk, cell, types.CellType.cell_contents, "")


def _visit_bound(walk: Walk, method: Any) -> None:
    if visit_for_good(walk, method) or visit_open(walk, method):
        return
    walk.then(method, method.__self__, getattr(method, "__func__", None))


def _visit_partial(walk: Walk, function: Any) -> None:
    walk.then(function, function.func, *function.args, function.keywords)


def _visit_cached(walk: Walk, function: Any) -> None:
    """What a pass puts into an empty cache goes. Beside other results it stays: no single one can be taken out."""
    walk.then(function, function.__wrapped__)
    if not function.cache_info().currsize:
        walk.keep(lambda: function.cache_clear() if function.cache_info().currsize else None)


def _visit_reference(walk: Walk, reference: Any) -> None:
    walk.then(reference, reference())


def _visit_proxy(walk: Walk, proxy: Any) -> None:
    """A read-only proxy or a view of a dictionary. That of a class is kept with the class."""
    for held in gc.get_referents(proxy):
        walk.then(proxy, *(held.values() if type(held) is dict and "__module__" in held else [held]))


def _visit_weak(walk: Walk, thing: Any) -> None:
    walk.dictionary(vars(thing))
    walk.then(thing, *thing.data)  # while what they refer to lives, so do the entries


VISITS: dict[type, Visit] = {
    **CONTAINERS,
    types.SimpleNamespace: _visit_attributes,
    argparse.Namespace: _visit_attributes,
    UserDict: _visit_attributes,
    UserList: _visit_attributes,
    ChainMap: _visit_attributes,
    types.FunctionType: _visit_function,
    types.MethodType: _visit_bound,
    types.BuiltinMethodType: _visit_bound,
    types.CellType: _visit_cell,
    partial: _visit_partial,
    type(lru_cache(int)): _visit_cached,
    weakref.ref: _visit_reference,
    weakref.WeakKeyDictionary: _visit_weak,
    weakref.WeakValueDictionary: _visit_weak,
    weakref.WeakSet: _visit_weak,
    threading.local: _visit_attributes,
    **dict.fromkeys((types.MappingProxyType, *map(type, ({}.keys(), {}.values(), {}.items()))), _visit_proxy),
    type: _visit_class,
}
"""The first that a type is a subclass of says how its objects are walked."""
