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
import os
import queue
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

from tb_bnlens.capture.code import is_subclass
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
_TALKING = {
    ("subprocess", "Popen"): "with which an extra pass would talk",
    **dict.fromkeys((("sqlite3", "Connection"), ("sqlite3", "Cursor"), ("sqlite3", "Blob")), "whose data are outside"),
    **dict.fromkeys(
        (("shelve", "Shelf"), ("http.client", "HTTPConnection"), ("ftplib", "FTP")), "whose data are outside"
    ),
    **dict.fromkeys((("smtplib", "SMTP"), ("xmlrpc.client", "ServerProxy")), "to which an extra pass would send"),
}
"""Module and name of further classes, which need not be imported for it."""
_FILES = (
    io.TextIOWrapper,
    io.BufferedIOBase,
    io.RawIOBase,
    tempfile._TemporaryFileWrapper,
    tempfile.SpooledTemporaryFile,
)
_POSITION = "an iterator whose position an extra pass would move"


def stateful(kind: type) -> Visit | None:
    """How objects of such a type are walked; None for other types."""
    if is_subclass(kind, _LOCKS):
        return _visit_lock
    for kinds, why in _STATEFUL.items():
        if is_subclass(kind, kinds):
            return partial(_refuse, why=why)
    for cls in kind.__mro__:
        if (cls.__module__, cls.__name__) in _TALKING:
            return partial(_refuse, why=_TALKING[cls.__module__, cls.__name__])
    if is_subclass(kind, _FILES) and not is_subclass(kind, io.BytesIO):
        return _visit_file
    # A user's iterator is an object like any other.
    if is_subclass(kind, Iterator) and is_closed(kind) and not is_subclass(kind, io.IOBase):
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


def _visit_file(walk: Walk, file: Any) -> None:
    """A file that is only written, as a log is, gets what each pass writes."""
    if file.closed or file in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        return
    if _is_pipe(file):
        walk.cannot_put_back(file, "a pipe in which an extra pass would write or read")
    elif getattr(file, "readable", _yes)():  # SpooledTemporaryFile has none before Python 3.11
        walk.cannot_put_back(file, "a file whose position an extra pass would move")


def _yes() -> bool:
    return True


def _is_pipe(file: Any) -> bool:
    try:
        number = file.fileno()
        mode = os.fstat(number).st_mode
    except (OSError, ValueError):  # in memory, or compressed
        return False
    return number > 2 and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))


def _refuse(walk: Walk, thing: Any, why: str) -> None:
    walk.cannot_put_back(thing, why)
