"""Warnings in a pass: Python shows many of them once, and training has yet to give its own."""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from tb_bnlens.capture.reach import outwards

_LOCK = threading.Lock()


class _Forgetting:
    """Stands for ``warnings.showwarning`` in a pass: what its thread warns of is not shown, and counts as not shown.

    Other code may keep it and call it later: behind the pass it calls what was there before.
    """

    def __init__(self) -> None:
        self.before: Any = warnings.showwarning
        self.passing: int | None = threading.get_ident()

    def __call__(self, message: Any, category: Any, filename: str, lineno: int, *others: Any) -> None:
        if threading.get_ident() != self.passing:
            self.before(message, category, filename, lineno, *others)
            return
        what = str(message), category
        registries = [frame.f_globals.get("__warningregistry__") or {} for frame in outwards(sys._getframe(1))]
        for registry in (*registries, getattr(warnings, "onceregistry", {})):
            for key in ((*what, lineno), (*what, 0), what):
                registry.pop(key, None)


@contextlib.contextmanager
def warnings_forgotten() -> Iterator[None]:
    """Let training give the warnings of the block as if the block had not."""
    with _LOCK:
        forgetting: Any = _Forgetting()
        warnings.showwarning = forgetting
    try:
        yield
    finally:
        with _LOCK:
            forgetting.passing = None
            shows: Any = warnings.showwarning
            while type(shows) is _Forgetting and shows.passing is None:  # also those of passes that overlapped
                shows = warnings.showwarning = shows.before
