"""A measurement: several passes in a row, between which nothing changes the model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from tb_bnlens.capture.noted import restore_all
from tb_bnlens.capture.signals import signals_wait
from tb_bnlens.capture.walk import Walk

_WALKS: ContextVar[dict[Any, Walk] | None] = ContextVar("bn_lens_walks", default=None)


@contextlib.contextmanager
def still() -> Iterator[None]:
    """Let the passes of the block share what is known of the model. Handlers of signals wait for its end.

    Raises:
        RuntimeError: putting something back has failed.
    """
    if _WALKS.get() is not None:
        yield
        return
    walks: dict[Any, Walk] = {}
    with signals_wait(), contextlib.ExitStack() as stack:
        stack.callback(_end, walks)
        stack.callback(_WALKS.reset, _WALKS.set(walks))
        yield


def _end(walks: dict[Any, Walk]) -> None:
    restore_all("what the model holds", [walk.end for walk in reversed(walks.values())])


def walk_of(key: Any, make: Callable[[], Walk]) -> Walk:
    """The walk of this key in the measurement, made where there is none yet."""
    walks = _WALKS.get()
    assert walks is not None
    if key not in walks:
        walks[key] = make()
    return walks[key]
