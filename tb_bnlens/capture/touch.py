"""What another thread may do to what the model or loss holds."""

from __future__ import annotations

import enum
import types
from collections import OrderedDict, deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tb_bnlens.capture.code import attributes_read
from tb_bnlens.capture.packages import is_closed
from tb_bnlens.capture.reach import ANY_NAME, APART, SPECIAL, Reach, attributes_of, contents_of, is_part, own_of

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


def reached(frame: types.FrameType) -> Reached:
    """What a thread that is here reaches. Code that reaches an object may call it, and perhaps does not."""
    try:
        return Reach(frame), Reach(frame, SPECIAL)
    except Exception:  # proxies and lazy objects may raise anything when an attribute is read
        return None


def touches(reached: Reached, held: Held) -> Touch:
    """What a thread that reaches this may do to what is put back."""
    if reached is None:
        return Touch.PERHAPS
    try:
        surely, perhaps = (_Changes(reach, held).most() for reach in reached)
    except Exception:
        return Touch.PERHAPS
    return Touch.WRITES if surely is Touch.WRITES else min(Touch.PERHAPS, perhaps)


class _Changes:
    """What code that reaches this may change of what is put back."""

    def __init__(self, reach: Reach, held: Held):
        self._reach, self._model = reach, held
        self._held: Collection[int] = (
            (held.objects.keys() - held.denied) | held.classes | set(map(id, held.empty))
        )
        self._unnamed = set(self._unnamed_parts())
        # A watcher keeps what it has read under the same name.
        others = (thing for key, thing in reach.met.items() if key not in self._held and not isinstance(thing, SPACES))
        self._loose = reach.loose.difference(*map(own_of, others))

    def most(self) -> Touch:
        """The gravest of all changes."""
        if self._reach.too_far:  # so many names tell nothing, unless the object is known too
            surely = any(key in self._held for key, _ in self._reach.targets)
            return Touch.WRITES if surely else Touch.PERHAPS
        if self._variables():
            return Touch.WRITES
        reached = [thing for key, thing in self._reach.met.items() if key in self._held]
        return max(map(self._of, reached), default=Touch.NOTHING)

    def _variables(self) -> bool:
        """Whether the code assigns variables of functions or modules."""
        reach, model = self._reach, self._model
        if any(name in model.variables.get(space, ()) for space, name in reach.variables):
            return True
        modules = [vars(thing) for thing in reach.met.values() if isinstance(thing, types.ModuleType)]
        if any(not reach.assigned.isdisjoint(model.variables.get(id(space), ())) for space in modules):
            return True
        if not reach.cells.isdisjoint(model.objects):
            return True
        held = [thing for thing in model.objects.values() if type(thing) is types.CellType] if reach.contents else []
        return any(content is one for content in contents_of(held) for one in reach.contents)

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
        of_user = [cls for cls in kind.__mro__ if not is_closed(cls)]
        if "setattr" in reach.globals or self._loose & own.union(*map(vars, of_user), *_parts_of(thing).values()):
            return Touch.WRITES
        perhaps = reach.names & ANY_NAME or any(reach.assigned & attributes_read(cls) for cls in of_user)
        return Touch.PERHAPS if perhaps else Touch.NOTHING

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
