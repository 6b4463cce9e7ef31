"""How objects of the standard library are walked, and what it keeps for the whole process."""

from __future__ import annotations

import atexit
import decimal
import faulthandler
import functools
import gc
import locale
import logging
import os
import signal
import socket
import sys
import threading
import tracemalloc
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tb_bnlens.capture.code import all_slots_of
from tb_bnlens.capture.noted import Place
from tb_bnlens.capture.packages import is_of_library, may_draw
from tb_bnlens.capture.stand_in import place_behind
from tb_bnlens.capture.walk import Visit, Walk

_OF_COMPANY = frozenset("_thread asyncio concurrent multiprocessing socketserver subprocess threading".split())
"""Packages for threads and processes, which change what their objects hold at any moment."""
_IN_C = frozenset("_blake2 _bz2 _contextvars _hashlib _lzma _md5 _sha1 _sha2 _sha256 _sha3 _sha512 zlib".split())
"""Packages whose objects in C change, other than by writing to files or devices."""
_REGISTRIES: tuple[type, ...] = (logging.Manager,)
"""What an import in a pass adds to them has to stay."""


def visit_of_library(kind: Any) -> Visit | None:
    """How objects of a type of the standard library are walked; None where they hold nothing that changes.

    By convention an object with a hash of its value does not change.
    """
    if not is_of_library(kind) or kind.__module__.partition(".")[0] in _OF_COMPANY or issubclass(kind, _REGISTRIES):
        return None
    if issubclass(kind, decimal.Context):
        return _later(_visit_decimal)
    if issubclass(kind, type(os.environ)):
        return _later(_visit_environment)
    if kind.__hash__ not in (None, object.__hash__):
        return None
    if _has_dictionary(kind) or all_slots_of(kind):
        return _later(_visit_attributes)
    return _refuse if kind.__module__.partition(".")[0] in _IN_C else None


def _refuse(walk: Walk, thing: Any) -> None:
    walk.cannot_put_back(thing, "whose state is kept in C and would be changed by an extra pass")


def _later(visit: Visit) -> Visit:
    return lambda walk, thing: walk.later(visit, thing)


def _has_dictionary(kind: Any) -> bool:
    return bool(kind.__dictoffset__)


def _visit_attributes(walk: Walk, thing: Any) -> None:
    if _has_dictionary(type(thing)):
        walk.dictionary(object.__getattribute__(thing, "__dict__"))
    for slot in all_slots_of(type(thing)):
        keep_slot(walk, thing, slot, slot.__name__)


def keep_slot(walk: Walk, thing: Any, slot: Any, name: str) -> None:
    """Note what a slot or cell holds."""
    get, put, drop = (functools.partial(method, thing) for method in (slot.__get__, slot.__set__, slot.__delete__))
    walk.place(Place(name, get, put, drop))


def _visit_decimal(walk: Walk, context: Any) -> None:
    kept = {name: getattr(context, name) for name in ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")}
    flags = {name: dict(getattr(context, name)) for name in ("flags", "traps")}

    def restore() -> None:
        for name, value in (*kept.items(), *flags.items()):
            if getattr(context, name) != value:
                setattr(context, name, value)

    walk.keep(restore)


def _visit_environment(walk: Walk, environment: Any) -> None:
    kept = dict(environment)

    def restore() -> None:
        now = dict(environment)
        if now != kept:  # one by one: each assignment reaches the process
            for name in now.keys() - kept.keys():
                del environment[name]
            for name, value in kept.items():
                if now.get(name) != value:
                    environment[name] = value

    walk.keep(restore)


def _visit_setting(walk: Walk, setting: tuple[Callable[[], Any], Callable[[Any], Any]]) -> None:
    get, put = setting
    kept = get()
    walk.keep(lambda: None if get() == kept else put(kept))


_THRESHOLDS = gc.get_threshold, lambda kept: gc.set_threshold(*kept)
_PRINTED = np.get_printoptions, lambda kept: np.set_printoptions(**kept)
_TIMEOUT = socket.getdefaulttimeout, socket.setdefaulttimeout
_SWITCH = sys.getswitchinterval, sys.setswitchinterval
_COLLECTION = gc.isenabled, lambda on: gc.enable() if on else gc.disable()
_LANGUAGE = functools.partial(locale.setlocale, locale.LC_ALL), functools.partial(locale.setlocale, locale.LC_ALL)
_DIRECTORY = os.getcwd, os.chdir
_ERRORS = np.geterr, lambda kept: np.seterr(**kept)
_RECURSION = sys.getrecursionlimit, sys.setrecursionlimit


def _loggers() -> Iterable[tuple[Visit, Any]]:
    known = logging.root.manager.loggerDict.values()
    yield from ((_visit_attributes, thing) for thing in (logging.root, *known) if isinstance(thing, logging.Logger))


_PROCESS_WIDE: dict[str, Callable[[], Iterable[tuple[Visit, Any]]]] = {
    "decimal": lambda: [(_visit_decimal, decimal.getcontext())],
    "gc": lambda: [(_visit_setting, _COLLECTION), (_visit_setting, _THRESHOLDS)],
    "locale": lambda: [(_visit_setting, _LANGUAGE)],
    "logging": _loggers,
    "numpy": lambda: [(_visit_setting, _ERRORS), (_visit_setting, _PRINTED)],
    "os": lambda: [(_visit_environment, os.environ), (_visit_setting, _DIRECTORY)],
    "sys": lambda: [(Walk.sequence, sys.path), (_visit_setting, _RECURSION), (_visit_setting, _SWITCH)],
    "socket": lambda: [(_visit_setting, _TIMEOUT)],
    "warnings": lambda: [(Walk.sequence, warnings.filters)],
}
"""Module -> what code that uses it can change for all code, and how that is walked."""


_FOR_GOOD: dict[str, dict[str, Any]] = {
    module.__name__: {name: getattr(module, name) for name in names.split() if hasattr(module, name)}
    for module, names in (
        (atexit, "register unregister"),
        (faulthandler, "cancel_dump_traceback_later disable dump_traceback_later enable register unregister"),
        (os, "nice putenv sched_setaffinity setpriority umask unsetenv"),
        (signal, "alarm pthread_sigmask set_wakeup_fd setitimer siginterrupt"),
        (threading, "setprofile settrace stack_size"),
        (tracemalloc, "start stop"),
    )
}
"""Module -> functions that change the process, and what was before cannot be read or put back."""
_START = threading.Thread.start
_IDS_FOR_GOOD = frozenset(id(function) for functions in _FOR_GOOD.values() for function in functions.values())


def visit_for_good(walk: Walk, function: Any) -> bool:
    """Deny one of ``_FOR_GOOD`` to a pass. Returns whether it is one."""
    if function is _START:  # left to ``refuse_threads``
        return True
    if id(function) not in _IDS_FOR_GOOD:
        return False
    _deny_for_good(walk, function)
    return True


def reach_for_good(walk: Walk, space: dict[str, Any], names: set[str]) -> None:
    """Deny what a module holds under these names of ``_FOR_GOOD``, where a user may have patched it too."""
    for name in _FOR_GOOD.get(str(space.get("__name__")), {}).keys() & names:
        get, put = functools.partial(space.__getitem__, name), functools.partial(space.__setitem__, name)
        place = place_behind(name, get, put)
        walk.reach(place)
        _deny_for_good(walk, place.value)


def _deny_for_good(walk: Walk, function: Any) -> None:
    walk.cannot_put_back(function, "which changes the process in a way that cannot be undone")


def refuse_threads(walk: Walk) -> None:
    """Have no pass start a thread where the code waits for the end of none: it would go on behind the pass."""
    cls = threading.Thread
    get, put = functools.partial(vars(cls).__getitem__, "start"), functools.partial(type.__setattr__, cls, "start")
    place = place_behind("start", get, put)
    walk.reach(place)
    for start in (_START, place.value):
        walk.cannot_put_back(start, "which would start a thread that no code waits for", lambda: not walk.joins)


def visit_module(walk: Walk, name: Any) -> None:
    """Walk what code can change for all code that uses this module."""
    walk.may_draw = walk.may_draw or may_draw(name)
    walk.may_wait = walk.may_wait or str(name).partition(".")[0] in _OF_COMPANY
    found = _PROCESS_WIDE.get(name)
    if found is not None and walk.is_new(found):
        for visit, thing in found():
            walk.later(visit, thing)
