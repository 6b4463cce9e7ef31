"""Signals that come while the lens measures: their handlers run behind it, and what they raise reaches the user.

A handler may save the model, or end the process. In the middle of a pass the model is not as training left it.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


def _handlers() -> dict[int, Callable[..., Any]]:
    """Handlers in Python by signal, but for the one that raises ``KeyboardInterrupt``, which ends a pass at once."""
    found = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return {
        n: handler for n, handler in found.items() if callable(handler) and handler is not signal.default_int_handler
    }


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """Let the handlers of signals that come in the block run when it has ended, once for each kind of signal.

    What the block sets as a handler is undone.

    Outside of the main thread nothing is done: no handler runs there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    handlers, came = _handlers(), dict[int, Any]()

    def wait(number: int, frame: Any) -> None:
        came[number] = frame

    try:
        for number in handlers:
            signal.signal(number, wait)
        yield
    finally:
        for number, kept in before.items():
            if signal.getsignal(number) is not kept and kept is not None:
                signal.signal(number, kept)
        with contextlib.ExitStack() as last_first:  # all of them, whatever one raises
            for number, frame in reversed(came.items()):
                last_first.callback(handlers[number], number, frame)


def of_handler(error: BaseException | None) -> BaseException | None:
    """What a handler of the user's has raised, as one for a time limit does: the error itself or a cause of it."""
    codes = {_code(handler) for handler in _handlers().values()}
    while error is not None:
        at = error.__traceback__
        while at is not None:
            if at.tb_frame.f_code in codes:
                return error
            at = at.tb_next
        error = error.__cause__
    return None


def _code(handler: Any) -> Any:
    handler = getattr(handler, "func", handler)  # a partial
    return getattr(handler, "__code__", None) or getattr(type(handler).__call__, "__code__", None)
