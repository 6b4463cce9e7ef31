"""Kinds of objects whose state cannot be put back: an iterator has a position, other threads take from a queue."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ctypes
import io
import multiprocessing.connection
import multiprocessing.managers
import multiprocessing.pool
import multiprocessing.queues
import multiprocessing.sharedctypes
import queue
import socket
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

from tb_bnlens.capture.packages import is_closed
from tb_bnlens.capture.walk import Visit, Walk

_C_DATA: Any = ctypes.c_int.__mro__[-2]
_SHARED = (_C_DATA, multiprocessing.sharedctypes.SynchronizedBase, multiprocessing.managers.BaseProxy)
_QUEUES = (queue.Queue, queue.SimpleQueue, multiprocessing.queues.Queue, multiprocessing.queues.SimpleQueue)
_SIGNALS: tuple[type, ...] = (threading.Event, threading.Semaphore, threading.Barrier, concurrent.futures.Future)
_LOCKS: tuple[type, ...] = (type(threading.Lock()), type(threading.RLock()), threading.Condition)
"""A pass that takes one gives it back; it must not wait for one, as where the loop holds it around a step."""
with contextlib.suppress(ImportError):  # a platform without semaphores
    from multiprocessing import synchronize

    _SIGNALS += (synchronize.Event, synchronize.Semaphore)
    _LOCKS += (synchronize.Lock, synchronize.RLock, synchronize.Condition)
_LINES: Any = (socket.socket, multiprocessing.connection._ConnectionBase)
_STATEFUL: dict[type | tuple[type, ...], str] = {
    (*_QUEUES, asyncio.Queue): "which an extra pass would fill or empty",
    _SIGNALS: "for which others may wait",
    _LINES: "to which an extra pass would send",
    (concurrent.futures.Executor, multiprocessing.pool.Pool): "whose other threads or processes are not watched",
    _SHARED: "whose memory others may share",
}
_POSITION = "an iterator whose position an extra pass would move"


def stateful(kind: type) -> Visit | None:
    """How objects of such a type are walked; None for other types."""
    if issubclass(kind, _LOCKS):
        return _visit_lock
    for kinds, why in _STATEFUL.items():
        if issubclass(kind, kinds):
            return partial(_refuse, why=why)
    # A user's iterator is an object like any other, and files are no state of training.
    if issubclass(kind, Iterator) and is_closed(kind) and not issubclass(kind, io.IOBase):
        return partial(_refuse, why=_POSITION)
    return None


def _visit_lock(walk: Walk, lock: Any) -> None:
    walk.may_wait = True
    walk.cannot_put_back(lock, "which is held, and for which an extra pass would wait", partial(_is_held, lock))


def _is_held(lock: Any) -> bool:
    if not lock.acquire(False):
        return True
    lock.release()
    return False


def _refuse(walk: Walk, thing: Any, why: str) -> None:
    walk.cannot_put_back(thing, why)
