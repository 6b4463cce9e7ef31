"""What the frames of a running ``fit`` tell that its callbacks are not told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

HOOK_DEPTH = 8
"""A hook is called this many frames below its ``CallbackList`` at most; a subclass may call ``super()``."""


KERAS = ("keras", "tf_keras")
"""Packages of Keras; neither is imported to look at a frame."""


def calling_list() -> Any:
    """The ``CallbackList`` that calls the running hook, None where it is called without one."""
    for _, frame in zip(range(HOOK_DEPTH), _frames(), strict=False):
        this = _local(frame, "self")
        if _is_callback_list(this):
            return this
    return None


def is_running(callbacks: Any) -> bool:
    """Whether a ``fit`` or loop further up the stack works with this ``CallbackList``."""
    if callbacks is None:
        return False
    return any(_local(frame, name) is callbacks for frame in _frames() for name in ("self", "callbacks"))


def validation_data_of(model: Any) -> Any:
    """``validation_data`` of the ``fit`` of this model that is running: given, or split off; None without one."""
    for frame in _frames():
        if frame.f_code.co_name == "fit" and _local(frame, "self") is model:
            return _local(frame, "validation_data")
    return None


def _is_callback_list(this: Any) -> bool:
    return any(
        base.__name__ == "CallbackList" and base.__module__.partition(".")[0] in KERAS for base in type(this).__mro__
    )


def _frames() -> Iterator[FrameType]:
    """The frames outside of this module, innermost first."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename != __file__:
            yield frame
        frame = frame.f_back


def _local(frame: FrameType, name: str) -> Any:
    # f_locals of a frame without that name would be built for nothing.
    code = frame.f_code
    return frame.f_locals.get(name) if name in code.co_varnames or name in code.co_cellvars else None
