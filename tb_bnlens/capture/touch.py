"""What another thread may do to what the model or loss holds."""

from __future__ import annotations

import contextlib
import enum
import types
from collections import OrderedDict, deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tb_bnlens.capture.code import attributes_read, own_classes
from tb_bnlens.capture.packages import is_closed
from tb_bnlens.capture.reach import ANY_NAME, APART, SPECIAL, Reach, attributes_of, contents_of, is_part, own_of
from tb_bnlens.capture.reasons import with_article

CHANGED_FROM = {
    list: tuple,
    dict: types.MappingProxyType,
    OrderedDict: types.MappingProxyType,
    set: frozenset,
    deque: tuple,
    bytearray: bytes,
}
"""Built-in containers, each with a similar one that cannot be changed."""
CHANGES = frozenset(name for kind, fixed in CHANGED_FROM.items() for name in {*dir(kind)} - {*dir(fixed)}) - {
    *("copy", "fromkeys", "maxlen", "__copy__", "__reversed__")
}
"""Methods that change a container."""
CHANGE_GIVEN = frozenset(
    """delitem heapify heappop heappush heappushpop heapreplace insort insort_left insort_right setitem
    shuffle""".split()
)
"""Functions that change a container which they are given."""
WRITES_VALUES = frozenset(
    """assign assign_add assign_sub copyto fill fit load_state_dict load_weights set_state set_weights train_on_batch
    update_parameters update_state zero_grad""".split()
)
"""Methods and functions that change tensors, variables or arrays, besides those of PyTorch whose names end in ``_``."""
FIXED = (*(types.FunctionType, types.MethodType, types.BuiltinMethodType), partial, tuple, frozenset)
"""What both may hold: a thread changes no more than the attributes of these."""

TRIES = 3
"""Looks at a thread that runs meanwhile."""
SPACES = (type, types.ModuleType, types.FunctionType)
"""They have attributes, and are no objects that keep what they have read."""


class Touch(enum.IntEnum):
    """What a thread may do to what is put back behind a pass."""

    NOTHING = 0
    PERHAPS = 1
    """It reaches some of it, and may give it to code that changes it."""
    WRITES = 2
    """Its code assigns some of it."""


@dataclass(frozen=True)
class Held:
    """What is put back behind a pass."""

    objects: dict[int, Any] = field(default_factory=dict)
    """id -> object."""
    empty: list[Any] = field(default_factory=list)
    """Empty dictionaries, which are none of ``objects``."""
    classes: set[int] = field(default_factory=set)
    """The ids of the user's classes whose attributes are."""
    denied: set[int] = field(default_factory=set)
    """The ids of those of the objects that no pass uses, or that it leaves as they are, such as a lock."""
    variables: dict[int, set[str]] = field(default_factory=dict)
    """id of the globals of a module -> names of the variables that are put back."""


Reached = tuple[Reach, Reach] | None
"""What a thread reaches for sure, and perhaps; None where that cannot be read."""


@dataclass(frozen=True)
class Found:
    """The most that a thread may do."""

    touch: Touch
    what: str = "what the model or loss holds"
    """What of it."""


def reached(frame: types.FrameType, is_told: bool = False) -> Reached:
    """What a thread that is here reaches. Code that reaches an object may call it, and perhaps does not.

    Args:
        frame: where it is.
        is_told: whether it is told to go on where it asks a signal again and again.
    """
    for _ in range(TRIES):
        # Proxies and lazy objects may raise anything when an attribute is read; the thread may change what is read.
        with contextlib.suppress(Exception):
            return Reach(frame, is_told=is_told), Reach(frame, SPECIAL, is_told)
    return None


def touches(reached: Reached, held: Held) -> Found:
    """What a thread that reaches this may do to what is put back."""
    if reached is None:
        return Found(Touch.PERHAPS)
    try:
        surely, perhaps = (_Changes(reach, held).most() for reach in reached)
    except Exception:
        return Found(Touch.PERHAPS)
    if surely.touch is Touch.WRITES:
        return surely
    return Found(min(Touch.PERHAPS, perhaps.touch), perhaps.what)


class _Changes:
    """What code that reaches this may change of what is put back."""

    def __init__(self, reach: Reach, held: Held):
        self._reach, self._model = reach, held
        self._held: Collection[int] = (held.objects.keys() - held.denied) | held.classes | set(map(id, held.empty))
        self._unnamed = set(self._unnamed_parts())
        # A watcher keeps what it has read under the same name.
        others = (thing for key, thing in reach.met.items() if key not in self._held and not isinstance(thing, SPACES))
        self._loose = reach.loose.difference(*map(own_of, others))
        self._read: dict[int, frozenset[str]] = {}

    def most(self) -> Found:
        """The gravest of all changes."""
        if self._reach.too_far:  # so many names tell nothing, unless the object is known too
            surely = any(key in self._held for key, _ in self._reach.targets)
            return Found(Touch.WRITES if surely else Touch.PERHAPS)
        variable = self._variable()
        if variable:
            return Found(Touch.WRITES, variable)
        reached = [thing for key, thing in self._reach.met.items() if key in self._held]
        worst = max(reached, key=self._of, default=None)
        found = Touch.NOTHING if worst is None else self._of(worst)
        return Found(found, self._described(worst)) if found else Found(found)

    def _described(self, thing: Any) -> str:
        """An object in words, by an attribute that the code names, or by the one that holds it."""
        reach, kind = self._reach, with_article(type(thing).__name__)
        assigned = {name for key, name in reach.targets if key == id(thing)}
        own = [name for name in attributes_of(thing) if name in reach.names or name in reach.assigned]
        for name in (*sorted(assigned - {""}), *sorted(reach.loose.intersection(own)), *own):
            return f"{name!r} of {kind} that the model or loss holds"
        for holder in self._model.objects.values():
            for name, value in own_of(holder).items():
                if value is thing:
                    return f"{name!r} of {with_article(type(holder).__name__)} that the model or loss holds"
        return f"{kind} that the model or loss holds"

    def _variable(self) -> str:
        """A variable of a function or module that the code assigns, in words; empty where there is none."""
        reach, model = self._reach, self._model
        modules = [vars(thing) for thing in reach.met.values() if isinstance(thing, types.ModuleType)]
        assigned = {*reach.variables, *((id(space), name) for space in modules for name in reach.assigned)}
        for space, name in sorted(assigned):
            if name in model.variables.get(space, ()):
                return f"the variable {name!r} of a module, which the model or loss reads"
        held = [thing for thing in model.objects.values() if type(thing) is types.CellType] if reach.contents else []
        shared = any(content is one for content in contents_of(held) for one in reach.contents)
        if shared or not reach.cells.isdisjoint(model.objects):
            return "a variable of an enclosing function, which the model or loss reads"
        return ""

    def _unnamed_parts(self) -> Iterator[int]:
        """The ids of what is reached as a part of a module or layer, and by no name of its own."""
        names = self._reach.names
        for thing in self._reach.met.values():
            for name, part in _parts_of(thing).items():
                if name not in names:
                    yield id(part)
                    yield from (id(value) for key, value in part.items() if key not in names)

    def _of(self, thing: Any) -> Touch:
        """The change of one object."""
        kind, reach = type(thing), self._reach
        if isinstance(thing, APART):
            return Touch.NOTHING
        if any(key == id(thing) for key, _ in reach.targets):
            return Touch.WRITES
        if isinstance(thing, type):
            return Touch.WRITES if self._loose & vars(thing).keys() else Touch.NOTHING
        own = {*attributes_of(thing)}
        if issubclass(kind, FIXED):
            return Touch.WRITES if self._loose & own else Touch.NOTHING
        if issubclass(kind, types.CellType):
            return Touch.NOTHING
        if is_closed(kind) and not callable(thing):
            return Touch.WRITES if self._writes_into(thing) else Touch.PERHAPS
        of_user = own_classes(kind)
        if "setattr" in reach.globals or self._loose & own.union(*map(vars, of_user), *_parts_of(thing).values()):
            return Touch.WRITES
        perhaps = reach.names & ANY_NAME or any(reach.assigned & self._attributes_read(cls) for cls in of_user)
        return Touch.PERHAPS if perhaps else Touch.NOTHING

    def _attributes_read(self, cls: type) -> frozenset[str]:
        key = id(cls)  # a metaclass may define no hash; many objects are of one class
        if key not in self._read:
            self._read[key] = attributes_read(cls)
        return self._read[key]

    def _writes_into(self, thing: Any) -> bool:
        """Whether the code changes what a container, tensor or array holds."""
        names, named = self._reach.names, id(thing) not in self._unnamed
        if isinstance(thing, tuple(CHANGED_FROM)):
            given = not CHANGE_GIVEN.isdisjoint(names | self._reach.globals)
            return named and (given or self._reach.assigns_items or not names.isdisjoint(CHANGES))
        if not WRITES_VALUES.isdisjoint(names | self._reach.globals):
            return True
        in_place = {name for name in names if name.endswith("_") and not name.startswith("_")}
        if named:
            in_place |= self._loose.union(["__setitem__"] if self._reach.assigns_items else ())
        return any(hasattr(type(thing), name) for name in in_place)


def _parts_of(thing: Any) -> dict[str, dict[str, Any]]:
    own = own_of(thing)
    return {name: value for name, value in list(own.items()) if is_part(name, value)}
