"""Results that are kept until the data provider says that a run has changed, bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Cache(Generic[T]):
    """Least recently used results, each valid for one state of its run.

    Concurrent requests for the same key wait for one computation instead of each doing it.
    """

    def __init__(self, limit_bytes: int, size: Callable[[T], int]) -> None:
        """
        Args:
            limit_bytes: what all kept results may hold together; a larger one is given out and not kept.
            size: bytes that a result holds.
        """
        self._limit = limit_bytes
        self._size = size
        self._kept: OrderedDict[Hashable, tuple[Hashable, T]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._computing: dict[Hashable, tuple[threading.Lock, int]] = {}

    @property
    def held_bytes(self) -> int:
        """What the kept results hold now."""
        return self._bytes

    def peek(self, key: Hashable) -> T | None:
        """The last result of a key, of whatever state, without waiting."""
        with self._lock:
            entry = self._kept.get(key)
        return entry[1] if entry else None

    def get(self, key: Hashable, state: Hashable, compute: Callable[[], T]) -> T:
        """The result for a key in this state; computed where it is not kept. Errors are not kept."""
        with self._only_one(key):
            with self._lock:
                entry = self._kept.get(key)
                if entry is not None and entry[0] == state:
                    self._kept.move_to_end(key)
                    return entry[1]
            result = compute()
            self._keep(key, state, result)
            return result

    def _keep(self, key: Hashable, state: Hashable, result: T) -> None:
        size = self._size(result)
        with self._lock:
            replaced = self._kept.pop(key, None)
            if replaced is not None:
                self._bytes -= self._size(replaced[1])
            if size > self._limit:
                return
            self._kept[key] = (state, result)
            self._bytes += size
            while self._bytes > self._limit:
                _, (_, dropped) = self._kept.popitem(last=False)
                self._bytes -= self._size(dropped)

    def _only_one(self, key: Hashable) -> _Turn:
        return _Turn(self._computing, self._lock, key)


class _Turn:
    """A lock for a key that exists only while someone waits for it, so that keys from requests do not pile up."""

    def __init__(self, locks: dict[Hashable, tuple[threading.Lock, int]], guard: threading.Lock, key: Hashable) -> None:
        self._locks = locks
        self._guard = guard
        self._key = key

    def __enter__(self) -> None:
        with self._guard:
            lock, waiting = self._locks.get(self._key, (threading.Lock(), 0))
            self._locks[self._key] = (lock, waiting + 1)
        lock.acquire()

    def __exit__(self, *exc: object) -> None:
        with self._guard:
            lock, waiting = self._locks[self._key]
            if waiting == 1:
                del self._locks[self._key]
            else:
                self._locks[self._key] = (lock, waiting - 1)
            lock.release()
