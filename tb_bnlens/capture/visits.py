"""How objects are walked: a user's objects and classes, functions and the modules that they name."""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import sys
import types
from collections import UserDict, UserList
from collections.abc import Collection
from typing import Any

from tb_bnlens.capture.code import attributes_read, functions_called, functions_of, reads
from tb_bnlens.capture.containers import CONTAINERS, GENERATORS
from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.walk import Visit, Walk

CLOSED_PACKAGES = frozenset(
    """IPython PIL accelerate aim clearml comet_ml datasets deepspeed flax grain h5py hydra ipykernel jax jaxlib joblib
    keras lightning lightning_fabric matplotlib mlflow neptune numba numpy omegaconf optax orbax pandas polars pyarrow
    pydantic pytorch_lightning ray rich scipy sklearn tb_bnlens tensorboard tensorboardX tensorflow tensorflow_datasets
    tf_keras torch torchvision tqdm transformers wandb xarray""".split()
) | frozenset(sys.stdlib_module_names)
"""Packages whose objects are not walked, modules and losses apart: a forward pass does not write what they hold."""
ITERATORS: tuple[type, ...] = (
    *(types.GeneratorType, itertools.count, itertools.cycle, itertools.chain, itertools.islice, map, filter, zip),
    *(enumerate, type(iter([])), type(iter(())), type(iter({})), type(iter(range(0)))),
)
"""They have a position that cannot be put back."""


def is_of_closed(module: object) -> bool:
    """Whether a module of this name is of a closed package; what runs as a script or in a notebook is a user's."""
    return str(module).partition(".")[0] in CLOSED_PACKAGES


def is_closed(kind: type) -> bool:
    """Whether a type, or a function, is of a closed package."""
    return is_of_closed(getattr(kind, "__module__", None))


def refuse_iterator(walk: Walk, thing: Any) -> None:
    """An iterator has a position that cannot be put back."""
    raise NotEvaluated(
        f"the model or loss holds a {type(thing).__name__}, an iterator whose position an extra pass would move; keep "
        "it outside of them to have the losses measured"
    )


def visit_both(visit: Visit, walk: Walk, thing: Any) -> None:
    """A user's subclass of a container has attributes too."""
    visit(walk, thing)
    visit_object(walk, thing)


def visit_alone(walk: Walk, thing: Any) -> None:
    """A module or layer beside other threads: its attributes, and the dictionaries in which it keeps its parts."""
    own = object.__getattribute__(thing, "__dict__")
    walk.dictionary(own)
    for name, value in own.items():
        if name.startswith("_") and isinstance(value, dict):
            walk.dictionary(value)


def visit_part(walk: Walk, thing: Any) -> None:
    """A framework's own module or layer: its class holds nothing that changes."""
    walk.dictionary(vars(thing))


def visit_object(walk: Walk, thing: Any) -> None:
    """Attributes and slots of a user's object, and what its class and methods reach."""
    with contextlib.suppress(AttributeError):
        own = object.__getattribute__(thing, "__dict__")  # which an object's own way to find attributes may count
        if type(own) is dict:
            walk.dictionary(own)
    kind: Any = type(thing)
    own_classes = tuple(cls for cls in kind.__mro__ if not is_closed(cls))
    walk.then(*functions_called(kind, own_classes))
    for cls in own_classes:
        if walk.is_new(cls):
            _keep_class(walk, cls)
        slots = vars(cls).values() if "__slots__" in vars(cls) else ()  # and no members of a class in C
        for slot in slots:
            if isinstance(slot, types.MemberDescriptorType):
                _keep_slot(walk, thing, slot)


def _keep_slot(walk: Walk, thing: Any, slot: Any) -> None:
    try:
        value = slot.__get__(thing)
    except AttributeError:
        walk.keep(lambda: _empty_slot(thing, slot))
        return
    walk.then(value)
    walk.keep(functools.partial(_set_slot, thing, slot, value))


def _set_slot(thing: Any, slot: Any, value: Any) -> None:
    try:
        if slot.__get__(thing) is value:
            return
    except AttributeError:  # it is empty by now
        pass
    slot.__set__(thing, value)


def _empty_slot(thing: Any, slot: Any) -> None:
    with contextlib.suppress(AttributeError):
        slot.__delete__(thing)


def _visit_class(walk: Walk, cls: Any) -> None:
    """A user's class that code names: it may call any function of it."""
    if not is_closed(cls):
        walk.then(*functions_of(cls))
        if walk.is_new(cls):
            _keep_class(walk, cls)


def _keep_class(walk: Walk, cls: Any) -> None:
    """Attributes of a user's class, where counters and tables may be kept."""
    before = {name: value for name, value in vars(cls).items() if not name.startswith("__")}
    read = attributes_read(cls)
    for name, value in before.items():
        # An iterator that only makes names for new objects is left alone.
        if not callable(value) and (name in read or not isinstance(value, ITERATORS)):
            walk.then(value)

    def restore() -> None:
        now = dict(vars(cls))
        for name in now.keys() - before.keys():
            if not name.startswith("__"):
                type.__delattr__(cls, name)
        for name, value in before.items():
            if now.get(name, _MISSING) is not value:
                type.__setattr__(cls, name, value)

    walk.keep(restore)


def _visit_function(walk: Walk, function: Any) -> None:
    if is_closed(function):
        return
    walk.then(*(function.__closure__ or ()), *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    walk.dictionary(function.__dict__)
    space, names = function.__globals__, reads(function.__code__)
    for name in names.globals:
        if name in space:
            walk.then(space[name])
            _keep_in_module(walk, space[name], names.attributes)
    for name in names.imports:
        _keep_in_module(walk, sys.modules.get(name), names.attributes)
    for name in names.stored:
        walk.keep(functools.partial(_set_global, space, name, name in space, space.get(name)))


def _keep_in_module(walk: Walk, module: Any, names: Collection[str]) -> None:
    """What code may reach, or assign, as ``module.name``, where the module is a user's."""
    if type(module) is not types.ModuleType or is_of_closed(module.__name__):
        return
    space = vars(module)
    for name in names:
        if name in space:
            walk.then(space[name])
            walk.keep(functools.partial(_set_global, space, name, True, space[name]))


_MISSING = object()


def _set_global(space: dict[str, Any], name: str, there: bool, value: Any) -> None:
    if there:
        if space.get(name, _MISSING) is not value:
            space[name] = value
    else:
        space.pop(name, None)


def _visit_cell(walk: Walk, cell: Any) -> None:
    try:
        value = cell.cell_contents
    except ValueError:  # empty
        return
    walk.then(value)

    def restore() -> None:
        with contextlib.suppress(ValueError):  # it is empty by now
            if cell.cell_contents is value:
                return
        cell.cell_contents = value

    walk.keep(restore)


def _visit_bound(walk: Walk, method: Any) -> None:
    walk.then(method.__self__, getattr(method, "__func__", None))


def _visit_partial(walk: Walk, partial: Any) -> None:
    walk.then(partial.func, *partial.args, partial.keywords)


VISITS: dict[type, Visit] = {
    **CONTAINERS,
    **GENERATORS,
    types.SimpleNamespace: visit_part,
    argparse.Namespace: visit_part,
    UserDict: visit_part,
    UserList: visit_part,
    types.FunctionType: _visit_function,
    types.MethodType: _visit_bound,
    types.BuiltinMethodType: _visit_bound,
    types.CellType: _visit_cell,
    functools.partial: _visit_partial,
    type: _visit_class,
}
"""The first that a type is a subclass of says how its objects are walked."""
