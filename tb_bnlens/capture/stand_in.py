"""Stand-ins for objects that cannot be put back: what uses one in a pass ends the pass before anything changes."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from tb_bnlens.capture.noted import Place

_OWN = frozenset(dir(object)) - {"__reduce_ex__"} | {"__del__"}
"""What every object has, such as a hash. It changes nothing."""


class StandIn:
    """Looks like an object and ends the pass when this thread uses it. Other threads use the object itself.

    Args:
        thing: the object.
        stop: called when it is used; raises ``NotEvaluated`` while a pass is made.
    """

    __slots__ = ("_held",)

    def __init__(self, thing: Any, stop: Callable[[], None]):
        object.__setattr__(self, "_held", (thing, stop, threading.get_ident()))

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":  # for isinstance
            return type(object.__getattribute__(self, "_held")[0])
        return getattr(_used(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_used(self), name, value)


def _used(stand_in: StandIn) -> Any:
    thing, stop, thread = object.__getattribute__(stand_in, "_held")
    if threading.get_ident() == thread:
        stop()
    return thing


def stand_in(thing: Any, stop: Callable[[], None]) -> Any:
    """A stand-in with the special methods of the object: it is callable, iterable or true where the object is."""
    kind: Any = type(thing)
    return _class_for(kind)(thing, stop)


def _class_for(kind: Any) -> Any:
    names = {name for cls in kind.__mro__ for name in vars(cls) if name.startswith("__") and name.endswith("__")}
    methods = {name: _forwarded(name) for name in names - _OWN if callable(getattr(kind, name, None))}
    return type(kind.__name__, (StandIn,), {"__slots__": (), **methods, "__reduce_ex__": _forwarded("__reduce_ex__")})


def _forwarded(name: str) -> Callable[..., Any]:
    return lambda self, *args, **kwargs: getattr(_used(self), name)(*args, **kwargs)


def guarded(function: Any, stop: Callable[[], None], ends: Callable[..., bool]) -> Any:
    """A stand-in for a function or method of which some calls alone end the pass.

    Args:
        function: the function.
        stop: as for ``StandIn``.
        ends: told the arguments of a call; whether it ends the pass.
    """
    thread = threading.get_ident()

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() == thread and ends(*args, **kwargs):
            stop()
        return function(*args, **kwargs)

    return call


_GUARDED = guarded(len, lambda: None, bool).__code__


def place_behind(name: str, get: Callable[[], Any], put: Callable[[Any], None]) -> Place:
    """A place, with the object itself as its value where it holds a stand-in of another lens; see ``Place``."""
    place = Place(name, get, put)
    place.value = _behind(place.value)
    return place


def _behind(thing: Any) -> Any:
    if issubclass(type(thing), StandIn):
        return object.__getattribute__(thing, "_held")[0]
    return thing.__wrapped__ if getattr(thing, "__code__", None) is _GUARDED else thing
