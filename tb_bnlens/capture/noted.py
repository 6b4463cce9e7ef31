"""What containers and places hold, and how it is put back."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

LONG = 10_000
"""A container of more elements is data: it is put back when the measurement ends, and its elements are not walked."""
EMPTY = object()
"""What a place holds that holds nothing."""


class Place:
    """Where an object is held: a slot, a cell, a global, an attribute of a class, a key of a dictionary.

    Args:
        name: for messages.
        get: gives the object, or raises ``AttributeError``, ``LookupError`` or ``ValueError`` where there is none.
        put: puts another one there.
        drop: empties the place, where that can be done.
    """

    __slots__ = ("_drop", "_get", "name", "put", "value")

    def __init__(
        self, name: Any, get: Callable[[], Any], put: Callable[[Any], None], drop: Callable[[], None] | None = None
    ):
        self.name, self._get, self.put, self._drop = name, get, put, drop
        self.value = self.now()
        """What was there at first."""

    def now(self) -> Any:
        """What is there, or ``EMPTY``."""
        try:
            return self._get()
        except (AttributeError, LookupError, ValueError):
            return EMPTY

    def put_back(self) -> None:
        """Put back what was there."""
        if self.now() is self.value:
            return
        if self.value is not EMPTY:
            self.put(self.value)
        elif self._drop is not None:
            self._drop()


class Noted:
    """What some containers hold, and what else is to be called to put things back."""

    def __init__(self) -> None:
        self.empty: list[Any] = []
        """Empty dictionaries: most of those in a module are."""
        self.dicts: list[tuple[Any, dict[Any, Any]]] = []
        self.lists: list[tuple[Any, list[Any]]] = []
        self.restores: list[Callable[[], None]] = []

    def put_back(self) -> None:
        """Put back all that differs.

        Raises:
            RuntimeError: some of it could not be.
        """
        restore_all("what the model holds", (self._put_back_dicts, self._put_back_lists, *reversed(self.restores)))

    def _put_back_dicts(self) -> None:
        for now in self.empty:
            if dict.__len__(now):
                methods_of(now).clear(now)
        for now, kept in self.dicts:
            if has_kept(now, kept):
                continue
            methods = methods_of(now)
            if not are_same(methods.keys(now), kept):
                methods.clear(now)
            for key, value in kept.items():
                methods.__setitem__(now, key, value)

    def _put_back_lists(self) -> None:
        for now, kept in self.lists:
            if not are_same(now, kept):
                list.__setitem__(now, slice(None), kept)


def restore_all(what: str, restores: Iterable[Callable[[], Any]]) -> None:
    """Call all of them, whatever one of them raises.

    Raises:
        RuntimeError: one raised.
    """
    failed: list[Exception] = []
    for restore in restores:
        try:
            restore()
        except Exception as error:
            failed.append(error)
    if failed:
        raise RuntimeError(f"{what} could not be put back after an extra pass: {failed[0]!r}")


def are_same(a: Collection[Any], b: Collection[Any]) -> bool:
    """Whether two collections hold the same objects. They are not asked whether they are equal: tensors are not."""
    return len(a) == len(b) and all(map(operator.is_, a, b))


def has_kept(now: Any, kept: Mapping[Any, Any]) -> bool:
    """Whether a dictionary has the same keys in the same order, and holds the same objects."""
    methods = methods_of(now)
    return are_same(methods.keys(now), kept) and are_same(methods.values(now), kept.values())


def methods_of(dictionary: Any) -> Any:
    """Those of the built-in class, whatever a subclass makes of them."""
    return OrderedDict if isinstance(dictionary, OrderedDict) else dict
