"""A measurement: several passes in a row, between which nothing changes the model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from tb_bnlens.capture.noted import restore_all
from tb_bnlens.capture.signals import signals_wait
from tb_bnlens.capture.walk import Walk

_WALKS: ContextVar[dict[tuple[Any, frozenset[int]], Walk] | None] = ContextVar("bn_lens_walks", default=None)
_LAST: ContextVar[contextlib.ExitStack | None] = ContextVar("bn_lens_last", default=None)
_FOUND: ContextVar[dict[tuple[Any, int], tuple[Any, Any]] | None] = ContextVar("bn_lens_found", default=None)
Found = TypeVar("Found")


@contextlib.contextmanager
def still() -> Iterator[None]:
    """Let the passes of the block share what is known of the model. Handlers of signals wait for its end.

    Raises:
        RuntimeError: putting something back has failed.
    """
    if _WALKS.get() is not None:
        yield
        return
    walks: dict[tuple[Any, frozenset[int]], Walk] = {}
    with signals_wait(), contextlib.ExitStack() as stack:
        stack.callback(_end, walks)
        stack.callback(_WALKS.reset, _WALKS.set(walks))
        stack.callback(_LAST.reset, _LAST.set(stack))
        stack.callback(_FOUND.reset, _FOUND.set({}))
        yield


def found_once(find: Callable[[Any], Found], thing: Any) -> Found:
    """What is found of an object, such as the modules in a model; looked for once in a measurement.

    It is forgotten with the measurement: the next one may meet another model in the same object.
    """
    found = _FOUND.get()
    if found is None:
        return find(thing)
    key = find, id(thing)
    if key not in found:
        found[key] = thing, find(thing)
    known: Found = found[key][1]
    return known


def when_it_ends(do: Callable[[], object]) -> None:
    """Have this called at the end of the measurement, while it still knows the model."""
    stack = _LAST.get()
    assert stack is not None
    stack.callback(do)


def _end(walks: dict[tuple[Any, frozenset[int]], Walk]) -> None:
    restore_all("what the model holds", [step for walk in reversed(walks.values()) for step in walk.last_steps()])


def walk_of(of: Any, roots: Sequence[Any], make: Callable[[], Walk]) -> Walk:
    """A walk of the measurement that begins at these roots and perhaps at more; it is made where there is none yet.

    Args:
        of: what has made it; the walks of others are not used.
        roots: where it begins.
        make: makes it.
    """
    walks, wanted = _WALKS.get(), frozenset(map(id, roots))
    assert walks is not None
    for (maker, begun), walk in walks.items():
        if maker is of and wanted <= begun:
            return walk
    return walks.setdefault((of, wanted), make())
