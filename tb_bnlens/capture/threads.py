"""Whether other threads run code of the user's, which may change what the model or loss holds.

``randomness`` asks another question of them: whether they may draw random numbers, as installed code may too.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
import types
from collections import defaultdict
from collections.abc import Collection, Mapping

from tb_bnlens.capture.packages import is_of_closed
from tb_bnlens.capture.reach import outwards
from tb_bnlens.capture.touch import Found, Held, Reached, Touch, reached, touches

_WAITS = threading.Condition.wait.__code__
INSTALLED = ("site-packages", "dist-packages")
"""Directories whose code is no user's."""
TOOLS = (
    *("IPython.", "aim.", "clearml.", "comet_ml.", "debugpy.", "execnet.", "ipykernel.", "lightning_utilities."),
    *("mlflow.", "multiprocessing.queues", "neptune.", "pydev", "_pydev", "rich.", "tb_bnlens.", "tensorboard."),
    *("tensorboardX.", "torch.utils.data._utils.pin_memory", "tornado.", "tqdm.", "traitlets.", "wandb.", "zmq."),
)
"""How the modules of threads begin that change and draw nothing: progress bars, writers of logs, notebooks."""
LOOK = 0.01
"""Seconds for which threads have to be still that can reach the model, before the first pass."""
PATIENCE = 2.0
"""Seconds for threads that a pass has started and not joined."""
THREADS_CLOCK = 0b110
"""The kernel's mark of a clock that is one thread's (CPUCLOCK_PERTHREAD_MASK) and counts its time (CPUCLOCK_SCHED)."""
EVERYTHING = frozenset({"_active", "_current_frames", "enumerate", "get_objects", "get_referrers"})
"""Attributes of modules by which code finds threads, and other objects, that it does not hold."""
BESIDE_THREADS = (
    "another thread{} can change {}, and what it does could not be told from what an extra pass does; let it end, or "
    "join the thread that trains, or keep what it uses out of both, to have the losses measured"
)
Doing = tuple[types.FrameType, int]
"""Where a thread is, and the nanoseconds of CPU time that it has had; -1 where they cannot be read."""
Codes = tuple[types.CodeType, ...]
"""The code that a thread is in, and that of its callers."""


class Company:
    """Other threads, from now on.

    Args:
        held: what they must not change; what it holds may follow later.
        like: a company whose first look at the threads serves this one too.
    """

    def __init__(self, held: Held, like: Company | None = None):
        self._held = held
        self._known: defaultdict[int, dict[Codes, tuple[Found, Reached]]] = defaultdict(dict)
        self._all = {thread.ident for thread in threading.enumerate()}
        self._before: dict[int, Doing] = _of_users() if like is None else like._before
        # At once: a thread that ends later may have changed something before.
        self._first: dict[int, tuple[Codes, Reached]] = _look_at(self._before) if like is None else like._first

    def refusal(self) -> str:
        """Why no pass may begin; empty where it may.

        No thread may assign what is held, but one that waits until it is told to go on while no other can tell it. One
        that perhaps changes it must not run for a moment.
        """
        frames = frames_of_others()
        found = {ident: self._found(ident) for ident in self._before}
        writes = {ident for ident, one in found.items() if one.touch is Touch.WRITES}
        awake = {ident for ident in self._before.keys() & frames.keys() if not _waits_for_others(frames[ident])}
        woken = {ident for ident in writes - awake if ident in frames and self._may_be_woken(frames[ident], awake)}
        if writes & awake or woken:
            return self._reason(writes & awake or woken)
        if not any(one.touch for one in found.values()):
            return ""
        time.sleep(LOOK)
        return self.disturbed()

    def wait_for_new(self) -> None:
        """Wait for threads that were started since and may change what is held; a pass may have started them."""
        ends = time.monotonic() + PATIENCE
        for thread in threading.enumerate():
            ident = thread.ident
            if ident is not None and ident not in self._all and thread is not threading.current_thread():
                if ident in _of_users() and self._found(ident).touch:
                    thread.join(max(0.0, ends - time.monotonic()))

    def disturbed(self) -> str:
        """Why there is no further pass, for a thread has run code of the user's that can change what is held."""
        now = _of_users()
        ran = {
            ident for ident, doing in now.items() if doing != self._before.get(ident) or not is_known({ident: doing})
        }
        ran |= self._before.keys() - now.keys()
        return self._reason({ident for ident in ran if self._found(ident).touch})

    def _found(self, ident: int) -> Found:
        """The most that a thread may have done, wherever it has been met."""
        known = self._known[ident]
        if ident in self._first:
            codes, first = self._first[ident]
            if codes not in known:
                known[codes] = touches(first, self._held), first
        frame = frames_of_others().get(ident)
        codes = () if frame is None else _codes(frame)  # once: the thread may go on meanwhile
        if frame is not None and (codes not in known or self._is_told(ident, known[codes][1])):
            now = reached(frame)
            known[codes] = touches(now, self._held), now
            if self._is_told(ident, now):
                told = reached(frame, is_told=True)
                known[codes] = touches(told, self._held), told
        return max((found for found, _ in known.values()), key=lambda found: found.touch, default=Found(Touch.PERHAPS))

    def _may_be_woken(self, frame: types.FrameType, awake: Collection[int]) -> bool:
        """Whether some of these threads may tell one to go on that waits in a method of Python's until it is told."""
        waiting = itertools.takewhile(lambda outer: not _is_users(outer), outwards(frame))
        return self._reach(awake, {id(held) for outer in waiting for held in outer.f_locals.values()})

    def _reach(self, threads: Collection[int], ids: Collection[int]) -> bool:
        """Whether some of these threads may reach an object with one of these ids."""
        looks = [self._first[ident][1] if ident in self._first else None for ident in threads]
        everything = (look is None or look[1].too_far or not EVERYTHING.isdisjoint(look[1].names) for look in looks)
        return any(everything) or any(look is not None and not look[1].met.keys().isdisjoint(ids) for look in looks)

    def _is_told(self, ident: int, reached: Reached) -> bool:
        """Whether one that asks a signal again and again is told to go on, or may be by another one that is awake."""
        if reached is None:
            return False
        signals = {**reached[0].waits_for, **reached[1].waits_for}
        if any(signal.is_set() for signal in signals.values()):
            return True
        frames = frames_of_others() if signals else {}
        awake = {other for other, frame in frames.items() if other != ident and not _waits_for_others(frame)}
        return self._reach(awake & self._before.keys(), signals)

    def _reason(self, threads: Collection[int]) -> str:
        if not threads:
            return ""
        names = ", ".join(repr(thread.name) for thread in threading.enumerate() if thread.ident in threads)
        worst = max((self._found(ident) for ident in threads), key=lambda found: found.touch)
        return BESIDE_THREADS.format(f" ({names})" if names else "", worst.what)


def _look_at(threads: Collection[int]) -> dict[int, tuple[Codes, Reached]]:
    frames = frames_of_others()
    return {ident: (_codes(frames[ident]), reached(frames[ident])) for ident in frames.keys() & threads}


def _codes(frame: types.FrameType) -> Codes:
    return tuple(outer.f_code for outer in outwards(frame))


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


def _of_users() -> dict[int, Doing]:
    """The other threads that run code of a user's, or wait in that of Python or of a package, which may call it.

    One that waits does nothing: it looks for work all the time, as a server does.
    """
    found: dict[int, Doing] = {}
    tools = {thread.ident for thread in threading.enumerate() if is_of_a_tool(thread)}
    for ident, (innermost, spent) in others().items():
        frames = list(outwards(innermost))
        if any(map(_is_users, frames)):
            found[ident] = innermost, spent
        elif ident not in tools and not any(_module(frame).startswith(TOOLS) for frame in frames):
            found[ident] = frames[-1], 0
    return found


def _module(frame: types.FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def is_of_a_tool(thread: threading.Thread) -> bool:
    """Whether what it runs is of one of ``TOOLS``."""
    target = getattr(thread, "_target", None)
    codes = {str(getattr(code, "__module__", "")) for code in (type(thread), target) if code is not None}
    return any(code.startswith(TOOLS) for code in codes)


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


def is_known(doing: Mapping[int, Doing]) -> bool:
    """Whether it can be told if these threads run."""
    return all(spent >= 0 or frame.f_code is _WAITS for frame, spent in doing.values())


def _is_users(frame: types.FrameType) -> bool:
    installed = any(part in frame.f_code.co_filename for part in INSTALLED)
    return not installed and not is_of_closed(frame.f_globals.get("__name__"))


def _waits_for_others(innermost: types.FrameType) -> bool:
    """Whether a thread waits, for as long as it takes, until another one tells it to go on."""
    waits = innermost.f_globals.get("__name__") == threading.__name__
    return waits and innermost.f_locals.get("timeout", 0) in (None, -1)
