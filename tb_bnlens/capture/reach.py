"""What a thread can reach: its code names it, or something that holds it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socketserver
import sys
import threading
import types
import weakref
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.thread import _WorkItem
from contextvars import ContextVar
from functools import partial
from typing import Any, cast

from tb_bnlens.capture.ahead import ahead
from tb_bnlens.capture.code import CALLED, MAIN_THREAD, all_slots_of, functions_of, own_classes, reads
from tb_bnlens.capture.noted import LONG
from tb_bnlens.capture.packages import is_closed, is_of_closed, is_of_python

MOST_REACHED = 10_000
"""A thread that reaches more objects than this counts as one that reaches the model."""
SEQUENCES = (list, tuple, set, frozenset, deque)
STARTS_THREADS = ("threading", "concurrent.futures.thread")
"""Their frames hold what a thread began with."""
HAVE_HANDLERS = (asyncio.BaseProtocol, socketserver.BaseServer, socketserver.BaseRequestHandler)
"""Python calls methods of such a class by names that no code needs to hold, as ``do_GET``."""
UNCHANGED = (type(None), int, float, complex, str, bytes, tuple, frozenset)
"""Types whose objects ``+=`` does not change."""
WRAPPERS = (staticmethod, classmethod)
SPECIAL = (*CALLED, "__iter__", "__next__", "__getitem__", "__enter__", "__exit__")
"""Methods of a user's class that code calls and does not name."""
ANY_NAME = frozenset(("getattr", "setattr", "vars", "__dict__"))
"""Code that names one of these may read or assign any attribute."""
LENS = "tb_bnlens."
OF_A_LOOK = tuple(f"{LENS}capture.{name}" for name in ("noted", "reach", "threads", "touch", "walk"))
"""Another lens keeps in objects of these what it has seen, of other threads too."""
APART = (threading.local, ContextVar)
"""Each thread has a state of its own in them."""
SUSPENDED = (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType)


class Reach:
    """What a thread can reach from where it is. Of a user's object only the attributes that the code names.

    Args:
        innermost: where it is.
        unnamed: methods of a user's object that are followed although no code names them.
        is_told: whether a thread that asks a signal again and again is told to go on.
    """

    def __init__(self, innermost: types.FrameType, unnamed: Collection[str] = (), is_told: bool = False) -> None:
        self._unnamed, self._is_told = unnamed, is_told
        self.waits_for: dict[int, threading.Event] = {}
        """id -> signal without which it runs the same few lines again and again. Nothing else is followed then."""
        self._own = _work_of_this_thread()
        self.met = {id(work): work for work in self._own}
        """id -> object. What the present thread runs is not followed for the sake of one that waits for it."""
        self.names: set[str] = set()
        """Of attributes; with what may name any of them."""
        self.globals: set[str] = set()
        self.assigned: set[str] = set()
        """Those of the attributes that the code assigns."""
        self.targets: set[tuple[int, str]] = set()
        """id of an object and name of an attribute that it assigns there."""
        self.loose: set[str] = set()
        """Names of those that it assigns to objects which are not known."""
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
        waits = all(is_of_python(frame.f_globals.get("__name__")) for frame in frames)
        returned, of_lens = True, _of_lens(frames)
        for frame, is_ours in zip(frames, of_lens, strict=True):
            name = frame.f_globals.get("__name__")
            if not is_of_closed(name):
                returned = self._frame(frame, returned)
            elif not is_ours and (waits or name not in STARTS_THREADS):
                self._follow(frame.f_locals.values())
                # It may call any method of a user's object whose own method it is.
                holders = [frame.f_locals.get(name) for name in frame.f_code.co_varnames[:1]]
                self._follow(method for holder in holders for method in _methods(holder))

    def _frame(self, frame: types.FrameType, returned: bool = True) -> bool:
        """Follow what the rest of a frame's code names. Returns whether the frame may return."""
        values = dict(frame.f_locals)
        rest = ahead(frame, returned, partial(self._goes_on, frame.f_globals, values))
        names = reads(frame.f_code, rest.offsets)
        self._code(frame.f_code, frame.f_globals, values, rest.offsets)
        self._follow(values[name] for name in names.variables & values.keys())
        # Nothing tells the cells of a frame, but what they hold.
        self.contents += [values[name] for name in names.cells & values.keys()]
        if frame.f_locals is frame.f_globals:  # of a module
            self.globals |= names.variables
            self._stores(frame.f_globals, names.stored_names)
        return rest.returns

    def _goes_on(self, space: Mapping[str, Any], values: Mapping[str, Any], path: tuple[str, ...]) -> bool:
        """Whether something may tell a thread to go on that asks by this path of names."""
        variable, *names = (name.removesuffix("()") for name in path[:-1])
        try:
            asked = _at(values[variable] if variable in values else space[variable], names)
        except LookupError:
            return True
        if path[-2] == MAIN_THREAD and asked is threading.main_thread:
            asked = threading.main_thread()
        if any(asked is work for work in self._own):
            return False
        if type(asked) is not threading.Event or asked.is_set() or self._is_told:
            return True
        self.waits_for[id(asked)] = asked
        return False

    def _code(
        self,
        code: types.CodeType,
        space: Mapping[str, Any],
        values: Mapping[str, Any],
        offsets: frozenset[int] | None = None,
    ) -> None:
        """Follow what a piece of code names in these globals.

        Args:
            code: the code.
            space: the globals of its module.
            values: those of its variables that are known.
            offsets: of its instructions; None for all.
        """
        names = reads(code, offsets)
        self.names |= names.attributes | ANY_NAME.intersection(names.globals)
        self.globals.update(names.globals)
        self.assigned |= names.assigned
        self.loose |= names.loose
        for variable, *path, name in names.targets:
            try:
                holder = _at(values[variable] if variable in values else space[variable], path)
            except LookupError:
                self.loose.add(name)
            else:
                self.targets.add((id(holder), name))
        for variable in names.changed:
            paths = [(variable,), *(path[:-1] for path in names.aliases if path[-1] == variable)]
            for first, *rest in paths:
                with contextlib.suppress(LookupError):
                    held = _at(values[first] if first in values else space[first], rest)
                    if not isinstance(held, UNCHANGED):
                        self.targets.add((id(held), ""))
        self.assigns_items |= names.assigns_items
        self._stores(space, names.stored)
        self._follow(space[name] for name in names.globals if name in space)
        imported = [name for of in names.imports for name in (of, *(f"{of}.{part}" for part in names.attributes))]
        self._follow(sys.modules[name] for name in imported if name in sys.modules)

    def _stores(self, space: Mapping[str, Any], names: Iterable[str]) -> None:
        self.variables.update((id(space), name) for name in names)

    def _follow(self, things: Iterable[Any]) -> None:
        """Follow these."""
        self._waiting += things

    def _end(self) -> None:
        """Follow until nothing is new. A name that is met late may be one of an object that was met early."""
        known, spaces = set[str](), list[Mapping[str, Any]]()
        while self._waiting and not self.too_far:
            new_spaces: list[Mapping[str, Any]] = []
            while self._waiting and not self.too_far:
                thing = self._waiting.pop()
                if id(thing) not in self.met:
                    self.met[id(thing)] = thing
                    self._waiting += self._held(thing)
                    new_spaces += self._spaces_of(thing)
            new, known = self.names - known, set(self.names)
            for space in spaces:
                self._waiting += _under(space, new)
            for space in new_spaces:
                self._waiting += _under(space, known.union(self._unnamed))
                self._waiting += [value for name, value in list(space.items()) if is_part(name, value)]
            spaces += new_spaces

    def _held(self, thing: Any) -> Iterator[Any]:
        if isinstance(thing, APART) or type(thing).__module__ in OF_A_LOOK:
            return
        if isinstance(thing, (*SEQUENCES, dict)):
            if len(thing) <= LONG:
                yield from list(dict.values(thing) if isinstance(thing, dict) else thing)
        elif isinstance(thing, types.MethodType):
            yield thing.__self__
            yield from self._called(thing.__func__, (thing.__self__,))
        elif isinstance(thing, types.BuiltinMethodType):
            self.names.add(thing.__name__)
            yield thing.__self__
        elif isinstance(thing, partial):
            yield from (*thing.args, *thing.keywords.values())
            yield from self._called(thing.func, thing.args)
        elif isinstance(thing, types.FunctionType):
            yield from self._in_function(thing, ())
        elif isinstance(thing, property):
            yield from (thing.fget, thing.fset if getattr(thing.fget, "__name__", "") in self.assigned else None)
        elif isinstance(thing, WRAPPERS):
            yield thing.__func__
        elif isinstance(thing, SUSPENDED):
            yield from self._in_suspended(thing)
        elif isinstance(thing, weakref.ref):
            yield thing()
        elif is_closed(type(thing)) and not isinstance(thing, type | types.ModuleType):
            yield from _in_closed(thing)

    def _called(self, function: Any, arguments: Sequence[Any]) -> Iterator[Any]:
        """What a call of this with these first arguments, or with no others, reaches."""
        if not isinstance(function, types.FunctionType):
            yield function
        elif id(function) not in self.met:
            self.met[id(function)] = function
            yield from self._in_function(function, arguments)

    def _in_function(self, function: types.FunctionType, arguments: Sequence[Any]) -> Iterator[Any]:
        if is_closed(function):  # type: ignore[arg-type]
            return
        code, cells = function.__code__, function.__closure__ or ()
        named = dict(zip(code.co_freevars, cells, strict=True))
        values = dict(zip(code.co_varnames[: code.co_argcount], arguments, strict=False))
        values |= {name: content for name, cell in named.items() for content in contents_of([cell])}
        self._code(code, function.__globals__, values)
        yield from (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        yield from contents_of(cells)
        self.cells.update(id(named[name]) for name in reads(code).cells & named.keys())

    def _in_suspended(self, thing: Any) -> Iterator[Any]:
        """What a generator or coroutine uses when it is resumed."""
        prefix = next(prefix for prefix in ("gi", "cr", "ag") if hasattr(thing, f"{prefix}_frame"))
        frame = getattr(thing, f"{prefix}_frame")
        if frame is not None and not is_of_closed(frame.f_globals.get("__name__")):
            self._frame(frame)
        elif frame is not None and not str(frame.f_globals.get("__name__")).startswith(LENS):
            yield from frame.f_locals.values()
        yield getattr(thing, f"{prefix}_{'yieldfrom' if prefix == 'gi' else 'await'}")

    def _spaces_of(self, thing: Any) -> Iterator[Mapping[str, Any]]:
        """Attributes of a user's object, class or module; the code has to name them."""
        if isinstance(thing, types.ModuleType):
            if not is_of_closed(thing.__name__):
                yield vars(thing)
        elif isinstance(thing, type):
            of_user = own_classes(thing)
            yield from map(vars, of_user)
            if issubclass(thing, HAVE_HANDLERS):
                self._follow(function for cls in of_user for function in functions_of(cls))
        elif not is_closed(type(thing)) and not isinstance(thing, APART):
            own = attributes_of(thing)
            yield own
            self._follow([type(thing), *(own.values() if isinstance(thing, HAVE_HANDLERS) else ())])


def _under(space: Mapping[str, Any], names: Collection[str]) -> list[Any]:
    """What a space holds under these names; all where one of them may be any."""
    if not ANY_NAME.isdisjoint(names):
        return list(space.values())
    return [space[name] for name in space.keys() & names]


def attributes_of(thing: Any) -> dict[str, Any]:
    """What a user's object holds by name, in slots too."""
    found = dict(own_of(thing))
    for slot in all_slots_of(type(thing)):
        with contextlib.suppress(AttributeError):  # nothing yet
            found[slot.__name__] = slot.__get__(thing)
    return found


def own_of(thing: Any) -> Mapping[str, Any]:
    """The dictionary of an object, without code of the user's that looks for attributes; empty where it has none."""
    try:
        return cast(Mapping[str, Any], object.__getattribute__(thing, "__dict__"))
    except AttributeError:
        return {}


def outwards(frame: types.FrameType | None) -> Iterator[types.FrameType]:
    """A frame and its callers."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _of_lens(frames: Sequence[types.FrameType]) -> list[bool]:
    """Which frames run for a lens and are no user's, innermost first. It reaches no more than the user's code does."""
    found, ours = list[bool](), False
    for frame in reversed(frames):
        name = str(frame.f_globals.get("__name__"))
        ours = is_of_closed(name) and (ours or name.startswith(LENS))
        found.append(ours)
    return found[::-1]


def _in_closed(thing: Any) -> Iterator[Any]:
    """What an object of a closed package holds. Those of Python are often in C, or have slots."""
    if isinstance(thing, HAVE_HANDLERS):  # and of what a server is given it calls any method
        yield from (method for one in vars(thing).values() for method in _methods(one))
    if type(thing).__module__ not in ("builtins", "types") and is_of_python(type(thing).__module__):
        held = [one for one in gc.get_referents(thing) if not isinstance(one, types.ModuleType)]
    else:
        held = list(own_of(thing).values())
    # A call fills no empty container of a framework's module.
    yield from filter(_is_filled, held)


def _methods(thing: Any) -> list[types.MethodType]:
    """All that a user's classes give an object."""
    of_user = own_classes(type(thing))
    return [types.MethodType(function, thing) for cls in of_user for function in functions_of(cls)]


def is_part(name: str, value: Any) -> bool:
    """A module or layer keeps its parts in dictionaries with such names."""
    return name.startswith("_") and isinstance(value, dict)


def _at(thing: Any, path: Iterable[str]) -> Any:
    """An attribute of an attribute of an object.

    Raises:
        KeyError: it is in no dictionary.
    """
    for name in path:
        own = own_of(thing)
        inside = [own, *(part for key, part in list(own.items()) if is_part(key, part))]
        thing = next((space for space in inside if name in space), own)[name]
    return thing


def _is_filled(value: Any) -> bool:
    return not isinstance(value, (*SEQUENCES, dict)) or bool(len(value))


def contents_of(cells: Iterable[types.CellType]) -> Iterator[Any]:
    """What variables hold that functions share."""
    for cell in cells:
        try:
            yield cell.cell_contents
        except ValueError:  # nothing yet
            continue


def _work_of_this_thread() -> list[Any]:
    """The present thread, and the future of what it runs for an executor."""
    works = [frame for frame in outwards(sys._getframe()) if frame.f_code is _WorkItem.run.__code__]
    return [threading.current_thread(), *(frame.f_locals["self"].future for frame in works)]
