"""Undo or refuse draws of random numbers in an extra pass, which would change the numbers that training gets."""

from __future__ import annotations

import concurrent.futures.thread
import contextlib
import gc
import random
import sys
import threading
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.threads import frames_of_others, is_known, is_of_a_tool, others
from tb_bnlens.capture.walk import Walk

REASON = (
    "the model draws random numbers from Python or NumPy when it is traced, so an extra pass would change the numbers "
    "that training gets; draw them with keras.random, or with tf.random in Keras 2, to have the losses measured"
)
BESIDE_OTHERS = (
    "the model or loss draws random numbers from Python or NumPy while another thread runs, so an extra pass could "
    "change the numbers that training gets; draw them from a generator that the model holds to have the losses measured"
)
_NUMPY_IS_SEEN = isinstance(np.random.rand, types.BuiltinMethodType)
"""Whether a profiler sees calls of NumPy's generators, as with NumPy 1."""
_RLOCK = type(threading.RLock())


@contextlib.contextmanager
def draws_refused(walk: Walk | None = None) -> Iterator[None]:
    """Let the block trace user code, which must not draw from a generator of Python or NumPy.

    Other threads may draw meanwhile (Keras reads Python generators in a background thread), so no state is restored
    that another thread could have moved:

    - A draw of this thread from ``random`` is stopped before it is made.
    - NumPy's generators are locked where the block may draw from them, so that other threads wait for the trace. A draw
      of this thread is undone before they go on. NumPy before 2.3 has no lock that allows this: there a draw is undone
      if no other thread has run.

    Args:
        walk: what is known of the block. Nothing is locked without it: the block could wait for a thread that draws.

    Raises:
        NotEvaluated: the block drew, or may have drawn; or it may draw and wait for others, and is not run.
    """
    apart = others_may_draw()
    may_draw, may_wait = (False, False) if walk is None else (walk.may_draw, walk.may_wait)
    if apart and may_draw and may_wait:
        raise NotEvaluated(BESIDE_OTHERS)
    with contextlib.ExitStack() as locks:
        watched = _numpy_generators() if walk is None or may_draw or not apart else walk.generators
        before = [_State(generator, locks if apart and may_draw else None, not apart) for generator in watched]
        with _python_draws() as drawn:
            try:
                yield
            finally:
                # All of them are put back, so no short-circuit.
                if any([state.put_back() for state in before]) or drawn:
                    raise NotEvaluated(REASON) from None


def others_may_draw() -> bool:
    """Whether another thread of Python runs that may draw random numbers."""
    others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    frames = frames_of_others() if others else {}
    return any(not (is_of_a_tool(thread) or _is_idle(frames.get(thread.ident or 0))) for thread in others)


def _is_idle(frame: types.FrameType | None) -> bool:
    """Whether a thread of a ``ThreadPoolExecutor`` waits for work, as one of Keras' does."""
    return frame is not None and frame.f_code is concurrent.futures.thread._worker.__code__


@contextlib.contextmanager
def draws_undone(apart: bool, of_numpy: bool = True, waits: bool = False) -> Iterator[None]:
    """Undo draws of the block from the global generators of Python and NumPy.

    Args:
        apart: another thread may draw from them. A draw from ``random`` is stopped before it is made then, since it
            could not be undone.
        of_numpy: it may draw from NumPy's. Other threads that do wait for its end then.
        waits: it may wait for other threads in turn.

    Raises:
        NotEvaluated: the block drew, or tried to, what cannot be undone.
    """
    if not apart:
        # No lock: processes of a loader that the block starts would inherit it.
        before = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
        return
    if of_numpy and waits:
        raise NotEvaluated(BESIDE_OTHERS)
    if not of_numpy:
        with _python_draws((random._inst,), BESIDE_OTHERS) as drawn:
            yield
        if drawn:
            raise NotEvaluated(BESIDE_OTHERS)
        return
    with contextlib.ExitStack() as locks:
        # Its lock makes other threads wait. NumPy before 2.3 has no lock that allows this, and what it has drawn is put
        # back if no other thread has run.
        numpy = _State(np.random.mtrand._rand, locks)
        of_all = (random._inst,) if numpy.locked else (random._inst, numpy.generator)
        with _python_draws(of_all, BESIDE_OTHERS) as drawn:
            try:
                yield
            finally:
                moved = numpy.put_back()
                if drawn or (moved and not numpy.undone and not _NUMPY_IS_SEEN):
                    raise NotEvaluated(BESIDE_OTHERS) from None


@contextlib.contextmanager
def _python_draws(only: Sequence[Any] = (), reason: str = REASON) -> Iterator[list[str]]:
    """Stop draws of this thread from ``random.Random`` objects, or from some; the list names the attempts."""
    drawn: list[str] = []

    def stop(_frame: Any, event: str, function: Any) -> None:
        if event != "c_call" or getattr(function, "__name__", "") == "getstate":
            return
        drawn_from = getattr(function, "__self__", None)
        if any(drawn_from is one for one in only) if only else isinstance(drawn_from, random.Random):
            drawn.append(function.__name__)
            raise NotEvaluated(reason)

    if sys.getprofile() is not None:
        # Somebody else's profiler stays. What is drawn is noticed and not stopped.
        state = random.getstate()
        yield drawn
        if random.getstate() != state:
            drawn.append("random")
        return
    sys.setprofile(stop)
    try:
        yield drawn
    finally:
        sys.setprofile(None)


def _numpy_generators() -> list[Any]:
    """All generators of NumPy in this process, in an order in which two threads can lock them."""
    found = {id(generator): generator for generator in _generators_in(gc.get_objects())}
    found.update((id(generator), generator) for generator in _FROZEN.generators())
    return sorted(found.values(), key=lambda generator: id(_lock_of(generator)))


def _generators_in(things: Iterable[Any]) -> list[Any]:
    # type() and not isinstance(): some objects answer __class__ by importing a package.
    kinds = (np.random.RandomState, np.random.BitGenerator)
    return [thing for thing in things if issubclass(type(thing), kinds)]


class _Frozen:
    """NumPy's generators that ``gc.freeze`` has put out of sight of ``gc.get_objects``."""

    def __init__(self) -> None:
        self._count = 0
        self._generators: list[Any] = []

    def generators(self) -> list[Any]:
        """The generators; looked for again, which takes a second, when more objects are frozen than the last time."""
        before, self._count = self._count, gc.get_freeze_count()
        if self._count > before:
            self._generators = _generators_in(_reachable())
        return self._generators


def _reachable() -> Iterable[Any]:
    """All objects that the garbage collector tracks, frozen or not."""
    seen: dict[int, Any] = {}
    found = [sys.modules, *sys._current_frames().values(), *gc.get_objects()]
    while found:
        new = {id(thing): thing for thing in found if id(thing) not in seen and gc.is_tracked(thing)}
        seen |= new
        found = gc.get_referents(*new.values())
    return seen.values()


_FROZEN = _Frozen()


def _lock_of(generator: Any) -> Any:
    return getattr(getattr(generator, "_bit_generator", generator), "lock", None)


class _State:
    """The state of one of NumPy's generators, locked where that is possible.

    Args:
        generator: a ``RandomState`` or ``BitGenerator``.
        locks: releases the lock; None where it is not locked.
        alone: no other thread draws from it.
    """

    def __init__(self, generator: Any, locks: contextlib.ExitStack | None, alone: bool = False):
        self.generator = generator
        lock = _lock_of(generator)
        self.locked = locks is not None and isinstance(lock, _RLOCK)
        if locks is not None and self.locked:
            locks.enter_context(lock)
        self._safe = self.locked or alone
        self._state, self._others = self._read(), {} if self._safe else others()
        self.undone = False
        """Whether what was drawn is put back."""

    def put_back(self) -> bool:
        """Undo what was drawn since, if others cannot have drawn it. Returns whether anything was."""
        if _same(self._state, self._read()):
            return False
        self.undone = self._safe or (is_known(self._others) and others() == self._others)
        if self.undone and isinstance(self.generator, np.random.RandomState):
            self.generator.set_state(self._state)
        elif self.undone:
            self.generator.state = self._state
        return True

    def _read(self) -> Any:
        if isinstance(self.generator, np.random.RandomState):
            return self.generator.get_state(legacy=False)
        return self.generator.state


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return bool(np.array_equal(a, b))
