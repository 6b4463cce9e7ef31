"""Files that a pass must not open to write: each extra pass would write too."""

from __future__ import annotations

import builtins
import io
import os
import pathlib
import sys
from functools import partial
from typing import Any

from tb_bnlens.capture.code import Reads
from tb_bnlens.capture.packages import is_of_closed, is_of_python
from tb_bnlens.capture.stand_in import place_behind
from tb_bnlens.capture.walk import Walk

_HOLDERS: tuple[Any, ...] = (builtins, io, os, pathlib.Path)
"""What holds a function ``open`` that opens files."""
_CALLS = frozenset({"open", "write_bytes", "write_text"})
"""Names in code that may come to call one of them, as ``gzip.open`` does."""
_FUNCTIONS = frozenset(id(vars(holder)["open"]) for holder in _HOLDERS)
_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def reach_open(walk: Walk, names: Reads) -> None:
    """Walk the functions that open files, where code with these names may call one."""
    if (_CALLS.isdisjoint(names.attributes) and _CALLS.isdisjoint(names.globals)) or not walk.is_new(_HOLDERS):
        return
    for holder in _HOLDERS:
        place = place_behind("open", partial(vars(holder).__getitem__, "open"), partial(setattr, holder, "open"))
        walk.reach(place)
        _deny(walk, place.value)


def visit_open(walk: Walk, function: Any) -> bool:
    """Deny those calls of one of these functions that open a file to write. Returns whether it is one of them."""
    if id(function) not in _FUNCTIONS:
        return False
    _deny(walk, function)
    return True


def _deny(walk: Walk, function: Any) -> None:
    walk.cannot_put_back(function, "which opens a file to write, where an extra pass would write too", calls=_writes)


def _writes(*given: Any, **named: Any) -> bool:
    """Whether code of a user's calls ``open``, ``os.open`` or ``Path.open`` with these arguments to write."""
    path, how = (*given, None, None)[:2]
    path = named.get("file", named.get("path")) if path is None else path
    how = named.get("flags", named.get("mode", "r")) if how is None else how
    writes = how & _FLAGS if isinstance(how, int) else not set("wax+").isdisjoint(str(how))
    # A number is that of a file that is open.
    return bool(writes) and not isinstance(path, int) and str(path) != os.devnull and _is_called_by_user()


def _is_called_by_user() -> bool:
    """Whether neither a framework nor the lens calls, and for no temporary file, which is the pass' own."""
    frame = sys._getframe(3)
    while is_of_python(name := frame.f_globals.get("__name__")) and name != "tempfile" and frame.f_back is not None:
        frame = frame.f_back
    return not is_of_closed(name)
