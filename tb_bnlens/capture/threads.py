"""Whether other threads run code of the user's, which may change what the model or loss holds.

``randomness`` asks another question of them: whether they may draw random numbers, as installed code may too.
"""

from __future__ import annotations

import sys
import threading
import time
import types
from collections.abc import Mapping
from typing import Any

from tb_bnlens.capture.packages import is_of_closed
from tb_bnlens.capture.reach import reaches

_WAITS = threading.Condition.wait.__code__
INSTALLED = ("site-packages", "dist-packages")
"""Directories whose code is no user's."""
LOOK = 0.01
"""Seconds for which threads have to be still that can reach the model, before the first pass."""
THREADS_CLOCK = 0b110
"""The kernel's mark of a clock that is one thread's (CPUCLOCK_PERTHREAD_MASK) and counts its time (CPUCLOCK_SCHED)."""
Doing = tuple[types.FrameType, int]
"""Where a thread is, and the nanoseconds of CPU time that it has had; -1 where they cannot be read."""


class Company:
    """Other threads, from now on.

    Args:
        held: what they must not change, id -> object.
    """

    def __init__(self, held: Mapping[int, Any]):
        self._held, self._before = held, _in_users_code()
        self._known: dict[frozenset[int], bool] = {}

    def is_still(self) -> bool:
        """Whether no thread that can reach what is held has run code of the user's."""
        return _did_nothing(self._before) or not self._reaches()

    def stays_still(self) -> bool:
        """The same, after a look at threads that have not run so far."""
        if not self._reaches():
            return True
        time.sleep(LOOK)
        return _did_nothing(self._before)

    def _reaches(self) -> bool:
        threads = frozenset(_in_users_code()).union(self._before)
        if threads not in self._known:
            frames = frames_of_others()
            self._known[threads] = reaches([frames[ident] for ident in threads if ident in frames], self._held)
        return self._known[threads]


def others() -> dict[int, Doing]:
    """All other threads of Python. Where this gives the same again, none of them has run meanwhile."""
    native = {thread.ident: thread.native_id for thread in threading.enumerate()}
    return {ident: (frame, _cpu_time(ident, native.get(ident))) for ident, frame in frames_of_others().items()}


def frames_of_others() -> dict[int, types.FrameType]:
    """Where all other threads of Python are."""
    frames = sys._current_frames()
    # The own frame holds this dictionary: a cycle that would keep alive all that its callers hold.
    frames.pop(threading.get_ident(), None)
    return frames


def _in_users_code() -> dict[int, Doing]:
    """The other threads that are in a function of a user's, which may change what the model or loss holds."""
    return {ident: doing for ident, doing in others().items() if _is_users(doing[0])}


def _cpu_time(ident: int, native: int | None) -> int:
    """Nanoseconds, -1 where they cannot be read.

    ``pthread_getcpuclockid`` reads memory that is freed when a thread ends, as one may any moment. Linux makes the same
    clock of the native number, and refuses that of a thread which has ended. Threads that nobody started through
    ``threading`` have none: those of a framework's pool, which do not end.
    """
    try:
        if native is not None and sys.platform == "linux":
            return time.clock_gettime_ns((~native << 3) | THREADS_CLOCK)
        return time.clock_gettime_ns(time.pthread_getcpuclockid(ident))
    except (AttributeError, OSError):  # not on this system; or the thread has ended
        return -1


def _did_nothing(before: Mapping[int, Doing]) -> bool:
    """Whether these threads and all others have run no code of a user's since: they sleep, or wait for something."""
    return is_known(before) and _in_users_code() == before


def is_known(doing: Mapping[int, Doing]) -> bool:
    """Whether it can be told if these threads run."""
    return all(spent >= 0 or frame.f_code is _WAITS for frame, spent in doing.values())


def _is_users(frame: types.FrameType | None) -> bool:
    while frame is not None:
        installed = any(part in frame.f_code.co_filename for part in INSTALLED)
        if not installed and not is_of_closed(frame.f_globals.get("__name__")):
            return True
        frame = frame.f_back
    return False
