"""A module of a user's that counts, beside the one that holds the network."""

from __future__ import annotations

import functools
from typing import Any

COUNT = 0


def bump() -> int:
    """The number of this call."""
    global COUNT
    COUNT += 1
    return COUNT


class Shared:
    """Counts in the class."""

    calls = 0

    @staticmethod
    def static() -> int:
        """The number of this call, in the module."""
        return bump()

    @classmethod
    def counted(cls) -> int:
        """The number of this call."""
        cls.calls += 1
        return cls.calls


class Template:
    """Calls what its subclass defines."""

    def run(self) -> int:
        """What the subclass returns."""
        result: int = self._made()  # type: ignore[attr-defined]
        return result


class Made(Template):
    """Counts in a method that only its base class calls."""

    def _made(self) -> int:
        return bump()


def scaled(x: Any, count: int) -> Any:
    """x, a little larger with each call."""
    return x * (1 + 0.01 * count)


class Counting:
    """A decorator that is an object: it counts the calls of a method."""

    def __init__(self, function: Any) -> None:
        self.function, self.calls = function, 0

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        return scaled(self.function(*args), self.calls)
