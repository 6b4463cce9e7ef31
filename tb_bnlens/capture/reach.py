"""What a thread can reach: its code names it, or something that holds it."""

from __future__ import annotations

import asyncio
import dis
import gc
import socketserver
import sys
import types
import weakref
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from tb_bnlens.capture.code import CALLED, functions_of, reads
from tb_bnlens.capture.noted import LONG
from tb_bnlens.capture.packages import is_closed, is_of_closed

MOST_REACHED = 10_000
"""A thread that reaches more objects than this counts as one that reaches the model."""
SEQUENCES = (list, tuple, set, frozenset, deque)
STARTS_THREADS = ("threading", "concurrent.futures.thread")
"""Their frames hold what a thread began with."""
HAVE_HANDLERS = (asyncio.BaseProtocol, socketserver.BaseServer, socketserver.BaseRequestHandler)
"""Python calls methods of such a class by names that no code needs to hold, as ``do_GET``."""
WRAPPERS = (staticmethod, classmethod, property)
SPECIAL = (*CALLED, "__iter__", "__next__", "__getitem__", "__enter__", "__exit__")
"""Methods of a user's class that code calls and does not name."""
ANY_NAME = frozenset(("getattr", "setattr", "vars", "__dict__"))
"""Code that names one of these may read or assign any attribute."""
SUSPENDED = (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType)


class Reach:
    """What a thread can reach from where it is. Of a user's object only the attributes that the code names.

    Args:
        innermost: where it is.
        unnamed: methods of a user's object that are followed although no code names them.
    """

    def __init__(self, innermost: types.FrameType, unnamed: Collection[str] = ()) -> None:
        self._unnamed = unnamed
        self.met: dict[int, Any] = {}
        """id -> object."""
        self.names: set[str] = set()
        """Of attributes; with what may name any of them."""
        self.globals: set[str] = set()
        self.assigned: set[str] = set()
        """Those of the attributes that the code assigns."""
        self.assigns_items = False
        self.variables: set[tuple[int, str]] = set()
        """id of the globals of a module and name of each variable in them that the code assigns."""
        self.cells: set[int] = set()
        """The ids of variables of an enclosing function that it assigns."""
        self.contents: list[Any] = []
        """What such variables hold of which no more is known."""
        self._waiting: list[Any] = []
        self._thread(innermost)
        self._end()

    @property
    def too_far(self) -> bool:
        """Whether there is more than was followed."""
        return len(self.met) > MOST_REACHED

    def _thread(self, innermost: types.FrameType) -> None:
        """Follow what a thread may use from where it is."""
        frames = list(outwards(innermost))
        waits = all(is_of_python(frame) for frame in frames)
        for frame in frames:
            if not is_of_closed(frame.f_globals.get("__name__")):
                self._frame(frame)
            elif waits or frame.f_globals.get("__name__") not in STARTS_THREADS:
                self._follow(frame.f_locals.values())

    def _frame(self, frame: types.FrameType) -> None:
        """Follow what the rest of a frame's code names."""
        start, named = _rest(frame)
        self._code(frame.f_code, frame.f_globals, start)
        self._follow(value for name, value in frame.f_locals.items() if name in named)
        # Nothing tells the cells of a frame, but what they hold.
        self.contents += [frame.f_locals[name] for name in reads(frame.f_code, start).cells & frame.f_locals.keys()]
        self._stores(frame.f_globals, _stored(frame, start))

    def _code(self, code: types.CodeType, space: Mapping[str, Any], start: int = 0) -> None:
        """Follow what a piece of code names in these globals, from an offset on."""
        names = reads(code, start)
        self.names |= names.attributes | ANY_NAME.intersection(names.globals)
        self.globals.update(names.globals)
        self.assigned |= names.assigned
        self.assigns_items |= names.assigns_items
        self._stores(space, names.stored)
        self._follow(space[name] for name in names.globals if name in space)

    def _stores(self, space: Mapping[str, Any], names: Iterable[str]) -> None:
        self.variables.update((id(space), name) for name in names)

    def _follow(self, things: Iterable[Any]) -> None:
        """Follow these."""
        self._waiting += things

    def _end(self) -> None:
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

    def _held(self, thing: Any) -> Iterator[Any]:
        if isinstance(thing, (*SEQUENCES, dict)):
            if len(thing) <= LONG:
                yield from dict.values(thing) if isinstance(thing, dict) else thing
        elif isinstance(thing, types.MethodType):
            yield from (thing.__self__, thing.__func__)
        elif isinstance(thing, types.BuiltinMethodType):
            self.names.add(thing.__name__)
            yield thing.__self__
        elif isinstance(thing, partial):
            yield from (thing.func, *thing.args, *thing.keywords.values())
        elif isinstance(thing, types.FunctionType):
            if not is_closed(thing):  # type: ignore[arg-type]
                yield from self._in_function(thing)
        elif isinstance(thing, WRAPPERS):
            yield getattr(thing, "__func__", getattr(thing, "fget", None))
        elif isinstance(thing, SUSPENDED):
            yield from self._in_suspended(thing)
        elif isinstance(thing, weakref.ref):
            yield thing()
        elif is_closed(type(thing)) and not isinstance(thing, type | types.ModuleType):
            yield from _in_closed(thing)

    def _in_function(self, function: types.FunctionType) -> Iterator[Any]:
        self._code(function.__code__, function.__globals__)
        yield from (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        cells, assigned = function.__closure__ or (), reads(function.__code__).cells
        yield from contents_of(cells)
        named = zip(function.__code__.co_freevars, cells, strict=True)
        self.cells.update(id(cell) for name, cell in named if name in assigned)

    def _in_suspended(self, thing: Any) -> Iterator[Any]:
        """What a generator or coroutine uses when it goes on."""
        prefix = next(prefix for prefix in ("gi", "cr", "ag") if hasattr(thing, f"{prefix}_frame"))
        frame = getattr(thing, f"{prefix}_frame")
        if frame is not None and not is_of_closed(frame.f_globals.get("__name__")):
            self._frame(frame)
        elif frame is not None:
            yield from frame.f_locals.values()
        yield getattr(thing, f"{prefix}_{'yieldfrom' if prefix == 'gi' else 'await'}")

    def _named(self, thing: Any) -> Iterator[Any]:
        """Attributes of a user's object, class or module that the code names."""
        spaces: list[Mapping[str, Any]] = []
        if isinstance(thing, types.ModuleType):
            if not is_of_closed(thing.__name__):
                spaces.append(vars(thing))
        elif isinstance(thing, type):
            of_user = [cls for cls in thing.__mro__ if not is_closed(cls)]
            spaces += map(vars, of_user)
            if issubclass(thing, HAVE_HANDLERS):
                handlers = [function for cls in of_user for function in functions_of(cls)]
                yield from (handler for handler in handlers if id(handler) not in self.met)
        elif not is_closed(type(thing)):
            spaces.append(getattr(thing, "__dict__", {}))
            if id(type(thing)) not in self.met:
                yield type(thing)
        every = bool(self.names & ANY_NAME)
        for space in spaces:
            for name, value in list(space.items()):
                named = every or name in self.names or name in self._unnamed
                if (named or is_part(name, value)) and id(value) not in self.met:
                    yield value


def is_of_python(frame: types.FrameType) -> bool:
    """Whether a frame is one of Python's own library."""
    return _is_pythons(frame.f_globals.get("__name__"))


def _is_pythons(module: object) -> bool:
    return str(module).partition(".")[0] in sys.stdlib_module_names


def outwards(frame: types.FrameType | None) -> Iterator[types.FrameType]:
    """A frame and those that it was called from."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _in_closed(thing: Any) -> Iterator[Any]:
    """What an object of a closed package holds. Those of Python are often in C, or have slots."""
    if isinstance(thing, asyncio.AbstractEventLoop):
        yield from asyncio.all_tasks(thing)
    if type(thing).__module__ not in ("builtins", "types") and _is_pythons(type(thing).__module__):
        held = [one for one in gc.get_referents(thing) if not isinstance(one, types.ModuleType)]
    else:
        held = list(getattr(thing, "__dict__", {}).values())
    # A call fills no empty container of a framework's module.
    yield from filter(_is_filled, held)


def is_part(name: str, value: Any) -> bool:
    """A module or layer keeps its parts in dictionaries with such names."""
    return name.startswith("_") and isinstance(value, dict)


def _stored(frame: types.FrameType, start: int) -> set[str]:
    """Variables of a module that the module's own code assigns."""
    if frame.f_locals is not frame.f_globals:
        return set()
    instructions = dis.get_instructions(frame.f_code)
    return {i.argval for i in instructions if i.offset >= start and i.opname in ("STORE_NAME", "DELETE_NAME")}


def _is_filled(value: Any) -> bool:
    return not isinstance(value, (*SEQUENCES, dict)) or bool(len(value))


def contents_of(cells: Iterable[types.CellType]) -> Iterator[Any]:
    """What variables hold that functions share."""
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
