"""Let one thread call something else than a function of a class or module."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any


def swap(stack: contextlib.ExitStack, owner: Any, name: str, instead: Callable[..., Any]) -> None:
    """Until the stack closes, this thread calls ``instead`` with the arguments of the function.

    Args:
        stack: puts it back.
        owner: the class or module; nothing is done where this version of it has no such function.
        name: of the function, which is looked up there at each call.
        instead: what is called.
    """
    own = vars(owner).get(name)
    if own is None:
        return
    bound, thread = getattr(owner, name), threading.get_ident()

    def called(*args: Any, **kwargs: Any) -> Any:
        return (instead if threading.get_ident() == thread else bound)(*args, **kwargs)

    setattr(owner, name, called)
    stack.callback(setattr, owner, name, own)
