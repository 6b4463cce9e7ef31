"""Whether another thread can reach what the model or loss holds: its code names it, or something that holds it."""

from __future__ import annotations

import dis
import types
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from tb_bnlens.capture.code import CALLED, reads
from tb_bnlens.capture.noted import LONG
from tb_bnlens.capture.packages import is_closed, is_of_closed

MOST_REACHED = 10_000
"""A thread that reaches more objects than this counts as one that reaches the model."""
SEQUENCES = (list, tuple, set, frozenset, deque)
STARTS_THREADS = ("threading", "concurrent.futures.thread")
"""Their frames hold what a thread began with."""
WRAPPERS = (staticmethod, classmethod, property)
SPECIAL = (*CALLED, "__iter__", "__next__", "__getitem__", "__enter__", "__exit__")
"""Methods of a user's class that code calls and does not name."""
ANY_NAME = frozenset(("getattr", "setattr", "vars", "__dict__"))
"""Code that names one of these may read or assign any attribute."""
FIXED = (*(type, types.FunctionType, types.MethodType, types.CellType), partial, tuple, frozenset)
"""What both may hold: a thread does not change these."""


class _Reach:
    """What some code can reach. Of a user's object only the attributes that the code names."""

    def __init__(self) -> None:
        self.met: dict[int, Any] = {}
        self.names: set[str] = set()
        self.assigned: set[str] = set()
        self._waiting: list[Any] = []

    def code(self, code: types.CodeType, space: Mapping[str, Any], start: int = 0) -> None:
        """Follow what a piece of code names in these globals, from an offset on."""
        names = reads(code, start)
        self.names |= names.attributes | ANY_NAME.intersection(names.globals)
        self.assigned |= names.assigned
        self.follow(space[name] for name in names.globals if name in space)

    def follow(self, things: Iterable[Any]) -> None:
        """Follow these."""
        self._waiting += things

    def end(self) -> None:
        """Follow until nothing is new. A name that is met late may be one of an object that was met early."""
        known = -1
        while (self._waiting or known < len(self.names)) and len(self.met) <= MOST_REACHED:
            known = len(self.names)
            while self._waiting and len(self.met) <= MOST_REACHED:
                thing = self._waiting.pop()
                if id(thing) not in self.met:
                    self.met[id(thing)] = thing
                    self._waiting += self._held(thing)
            for thing in list(self.met.values()):
                self._waiting += self._named(thing)

    def changes(self, thing: Any) -> bool:
        """Whether the code may change this object, which it reaches."""
        if issubclass(type(thing), FIXED):
            return False
        if is_closed(type(thing)) and not callable(thing):
            return True
        own = getattr(thing, "__dict__", {})
        return bool(self.names & ANY_NAME or self.assigned & own.keys())

    def _held(self, thing: Any) -> Iterator[Any]:
        if isinstance(thing, (*SEQUENCES, dict)):
            if len(thing) <= LONG:
                yield from dict.values(thing) if isinstance(thing, dict) else thing
        elif isinstance(thing, types.MethodType):
            yield from (thing.__self__, thing.__func__)
        elif isinstance(thing, partial):
            yield from (thing.func, *thing.args, *thing.keywords.values())
        elif isinstance(thing, types.FunctionType):
            if not is_closed(thing):  # type: ignore[arg-type]
                self.code(thing.__code__, thing.__globals__)
                yield from (*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values())
                yield from _contents(thing.__closure__ or ())
        elif isinstance(thing, WRAPPERS):
            yield getattr(thing, "__func__", getattr(thing, "fget", None))
        elif is_closed(type(thing)) and not isinstance(thing, type | types.ModuleType):
            # A call fills no empty container of a framework's module.
            yield from filter(_is_filled, getattr(thing, "__dict__", {}).values())

    def _named(self, thing: Any) -> Iterator[Any]:
        """Attributes of a user's object, class or module that the code names."""
        spaces: list[Mapping[str, Any]] = []
        if isinstance(thing, types.ModuleType):
            if not is_of_closed(thing.__name__):
                spaces.append(vars(thing))
        elif isinstance(thing, type):
            spaces += [vars(cls) for cls in thing.__mro__ if not is_closed(cls)]
        elif not is_closed(type(thing)):
            spaces.append(getattr(thing, "__dict__", {}))
            if id(type(thing)) not in self.met:
                yield type(thing)
        every = bool(self.names & ANY_NAME)
        for space in spaces:
            for name, value in list(space.items()):
                # A module or layer keeps its parts in dictionaries with such names.
                part = name.startswith("_") and isinstance(value, dict)
                if (every or part or name in self.names or name in SPECIAL) and id(value) not in self.met:
                    yield value


def _is_filled(value: Any) -> bool:
    return not isinstance(value, (*SEQUENCES, dict)) or bool(len(value))


def _contents(cells: Iterable[types.CellType]) -> Iterator[Any]:
    for cell in cells:
        try:
            yield cell.cell_contents
        except ValueError:  # nothing yet
            continue


def _rest(frame: types.FrameType) -> tuple[int, set[Any]]:
    """Where the code begins that a frame runs and has yet to run, at the head of its loop; and the names there."""
    instructions = list(dis.get_instructions(frame.f_code))
    targets = [i.argval for i in instructions if i.offset >= frame.f_lasti and "JUMP" in i.opname]
    targets += [begin for begin, _, line in frame.f_code.co_lines() if line == frame.f_lineno]
    start, named = min((frame.f_lasti, *targets)), set[Any]()
    for instruction in instructions:
        if instruction.offset >= start:
            named.update(instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,))
    return start, named


def reaches(frames: Iterable[types.FrameType], held: Mapping[int, Any]) -> bool:
    """Whether one of the threads that are here may change something of this.

    Args:
        frames: where each thread is.
        held: id -> object.
    """
    reach = _Reach()
    try:
        for innermost in frames:
            frame: types.FrameType | None = innermost
            while frame is not None:
                if not is_of_closed(frame.f_globals.get("__name__")):
                    start, named = _rest(frame)
                    reach.code(frame.f_code, frame.f_globals, start)
                    reach.follow(value for name, value in frame.f_locals.items() if name in named)
                elif frame.f_globals.get("__name__") not in STARTS_THREADS:
                    reach.follow(frame.f_locals.values())
                frame = frame.f_back
        reach.end()
        return len(reach.met) > MOST_REACHED or any(map(reach.changes, map(held.get, reach.met.keys() & held.keys())))
    except Exception:  # proxies and lazy objects may raise anything when an attribute is read
        return True
