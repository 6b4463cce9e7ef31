"""Warnings in a pass: Python shows many of them once, and training has yet to give its own."""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from tb_bnlens.capture.reach import outwards


class _Forgetting:
    """Stands for ``warnings.showwarning`` while threads make passes: what those warn of counts as not shown.

    It shows the same warning of passes once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._passing: list[int] = []
        self._show: Any = self.show
        self._before: Any = None
        self._shown: set[Any] = set()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """A pass of this thread."""
        thread = threading.get_ident()
        with self._lock:
            self._passing.append(thread)
            if warnings.showwarning is not self._show:
                self._before, warnings.showwarning = warnings.showwarning, self._show
        try:
            yield
        finally:
            with self._lock:
                self._passing.remove(thread)
                if not self._passing and warnings.showwarning is self._show:
                    warnings.showwarning = self._before

    def show(self, message: Any, category: Any, filename: str, lineno: int, *others: Any) -> None:
        """Show a warning."""
        if threading.get_ident() in self._passing:
            what = str(message), category
            registries = [frame.f_globals.get("__warningregistry__") or {} for frame in outwards(sys._getframe(1))]
            for registry in (*registries, getattr(warnings, "onceregistry", {})):
                for key in ((*what, lineno), (*what, 0), what):
                    registry.pop(key, None)
            if (*what, filename, lineno) in self._shown:
                return
            self._shown.add((*what, filename, lineno))
        self._before(message, category, filename, lineno, *others)


warnings_forgotten = _Forgetting()
