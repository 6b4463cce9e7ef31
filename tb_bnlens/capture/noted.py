"""What containers and places hold, and how it is put back."""

from __future__ import annotations

import functools
import itertools
import operator
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from tb_bnlens.capture.reasons import cause_of

LONG = 10_000
"""A container of more elements is data: it is put back when the measurement ends, and its elements are not walked."""
GROUP = 256
"""Containers that are compared at once."""
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
        self.objects: list[Any] = []
        self.kinds: list[type] = []
        """Their classes."""
        self.restores: list[Callable[[], None]] = []
        self.together: dict[Any, Any] = {}
        """Kind of things -> what puts them back, which is one of ``restores``."""

    def steps(self) -> tuple[Callable[[], None], ...]:
        """What puts back all that differs, for ``restore_all``."""
        return self._put_back_kinds, self._put_back_dicts, self._put_back_lists, *reversed(self.restores)

    def _put_back_kinds(self) -> None:
        if not all(map(operator.is_, map(type, self.objects), self.kinds)):
            for thing, kind in zip(self.objects, self.kinds, strict=True):
                if type(thing) is not kind:
                    object.__setattr__(thing, "__class__", kind)

    def _put_back_dicts(self) -> None:
        if any(map(dict.__len__, self.empty)):
            for now in self.empty:
                methods_of(now).clear(now)
        for group in self._groups_of_dicts:
            for now, kept in group.differing():
                methods = methods_of(now)
                if not are_same(methods.keys(now), kept):
                    methods.clear(now)
                for key, value in kept.items():
                    methods.__setitem__(now, key, value)

    def _put_back_lists(self) -> None:
        for group in self._groups_of_lists:
            for now, kept in group.differing():
                list.__setitem__(now, slice(None), kept)

    @functools.cached_property
    def _groups_of_dicts(self) -> list[_Group]:
        ordered = [pair for pair in self.dicts if isinstance(pair[0], OrderedDict)]
        others = [pair for pair in self.dicts if not isinstance(pair[0], OrderedDict)]
        return [
            *_grouped(ordered, OrderedDict.keys, OrderedDict.values),
            *_grouped(others, dict.keys, dict.values),
        ]

    @functools.cached_property
    def _groups_of_lists(self) -> list[_Group]:
        return list(_grouped(self.lists, list.copy))


class _Group:
    """Some containers and what they hold, compared at once: one by one takes ten times as long.

    Args:
        noted: each with what it holds.
        parts: give what is compared of one: its keys in their order, its values.
    """

    def __init__(self, noted: Sequence[tuple[Any, Any]], parts: Sequence[Callable[[Any], Collection[Any]]]):
        self._noted, self._parts = noted, parts
        self._tables, held = [now for now, _ in noted], [kept for _, kept in noted]
        self._lengths, self._kept = list(map(len, held)), [list(_all(part, held)) for part in parts]

    def differing(self) -> list[tuple[Any, Any]]:
        """The containers that hold something else now, by identity: tensors do not compare as equal."""
        held = zip(self._parts, self._kept, strict=True)
        same = list(map(len, map(self._parts[0], self._tables))) == self._lengths
        if same and all(all(map(operator.is_, _all(part, self._tables), kept)) for part, kept in held):
            return []
        return [pair for pair in self._noted if not all(are_same(*map(part, pair)) for part in self._parts)]


def _all(part: Callable[[Any], Iterable[Any]], tables: Iterable[Any]) -> Iterator[Any]:
    return itertools.chain.from_iterable(map(part, tables))


def _grouped(noted: Sequence[tuple[Any, Any]], *parts: Callable[[Any], Collection[Any]]) -> Iterator[_Group]:
    for start in range(0, len(noted), GROUP):
        yield _Group(noted[start : start + GROUP], parts)


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
        raise RuntimeError(f"{what} could not be put back after an extra pass: {cause_of(failed[0])}")


def are_same(a: Collection[Any], b: Collection[Any]) -> bool:
    """Whether two collections hold the same objects in the same order."""
    return len(a) == len(b) and all(map(operator.is_, a, b))


def methods_of(dictionary: Any) -> Any:
    """Those of the built-in class, whatever a subclass makes of them."""
    return OrderedDict if isinstance(dictionary, OrderedDict) else dict
