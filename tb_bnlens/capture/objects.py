"""Put back what Python objects hold: an extra pass runs code of the user's, which may count, append or draw.

The walk starts at what a pass calls (a model, a loss) and follows attributes, containers, closures and the globals that
functions read. It notes what each object holds, and afterwards puts that back into the very same objects.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tb_bnlens.capture.containers import GENERATORS
from tb_bnlens.capture.visits import (
    ITERATORS,
    VISITS,
    is_closed,
    is_of_closed,
    refuse_iterator,
    visit_alone,
    visit_both,
    visit_object,
    visit_part,
)
from tb_bnlens.capture.walk import Visit, Walk

INSTALLED = ("site-packages", "dist-packages")
"""Directories whose code is no user's."""
PLAIN: tuple[type, ...] = (
    *(type(None), bool, int, float, complex, str, bytes, range, slice, type(Ellipsis)),
    *(types.ModuleType, types.CodeType, np.generic, np.dtype),
)
"""They hold nothing that changes."""


def _others_run_users_code() -> bool:
    """Whether another thread is in a function of a user's, which may change what the model or loss holds."""
    own = threading.get_ident()
    return any(_is_users(frame) for ident, frame in sys._current_frames().items() if ident != own)


def _is_users(frame: types.FrameType | None) -> bool:
    while frame is not None:
        installed = any(part in frame.f_code.co_filename for part in INSTALLED)
        if not installed and not is_of_closed(frame.f_globals.get("__name__")):
            return True
        frame = frame.f_back
    return False


class Objects:
    """Knows which objects of a framework are walked, and puts back what they hold.

    Args:
        parts: walked although they are of a closed package: modules, layers, losses.
        closed: not walked although they are a user's: optimizers, loaders, datasets.
        visits: type -> how its objects are walked, e.g. tensors.
    """

    def __init__(
        self,
        parts: tuple[type, ...] = (),
        closed: tuple[type, ...] = (),
        visits: Mapping[type, Visit] | None = None,
    ):
        self._parts, self._closed, self._visits = parts, closed, {**(visits or {}), **VISITS}
        self._unshared: dict[type, Visit] = {**(visits or {}), **GENERATORS}
        self._known: dict[type, Visit | None] = {}
        self._known_beside_others: dict[type, Visit | None] = {}

    @contextlib.contextmanager
    def put_back(self, *roots: Any) -> Iterator[None]:
        """Put back what the objects that can be reached hold, when the block ends.

        Beside a thread that runs a user's code only parts, objects of the framework and generators are put back: that
        thread may use all else, such as a queue that it fills, or a counter.

        Args:
            roots: what is called in the block.

        Raises:
            NotEvaluated: an object cannot be put back, or there are too many; the block is not run then.
            RuntimeError: putting something back has failed. All else has been put back.
        """
        if _others_run_users_code():
            walk = Walk(self._known_beside_others, self._visit_beside_others)
        else:
            walk = Walk(self._known, self._visit_of)
        walk.over(roots)
        try:
            yield
        finally:
            walk.put_back()

    def _visit_of(self, kind: type) -> Visit | None:
        """How objects of a type are walked; None where they are not."""
        self._known[kind] = found = self._found(kind)
        return found

    def _visit_beside_others(self, kind: type) -> Visit | None:
        found = next((visit for known, visit in self._unshared.items() if issubclass(kind, known)), None)
        if found is None and issubclass(kind, self._parts):
            found = visit_alone
        self._known_beside_others[kind] = found
        return found

    def _found(self, kind: type) -> Visit | None:
        if issubclass(kind, PLAIN) or issubclass(kind, self._closed):
            return None
        if issubclass(kind, ITERATORS):
            return refuse_iterator
        for known, visit in self._visits.items():
            if issubclass(kind, known):
                return visit if is_closed(kind) else functools.partial(visit_both, visit)
        if issubclass(kind, self._parts):
            return visit_part if is_closed(kind) else visit_object
        return None if is_closed(kind) else visit_object
