"""What was found out of classes is remembered while they live, and keeps none of them alive.

A class may be made for one model: in a function, or by ``torch.nn.utils.parametrize``. It holds what its methods close
over, which may be the weights of the model.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def remembered(find: Callable[[Any], T]) -> Callable[[Any], T]:
    """Let a function be called once for each class. Its result must not refer to the class."""
    known: weakref.WeakKeyDictionary[Any, T] = weakref.WeakKeyDictionary()

    @functools.wraps(find)
    def remembering(kind: Any) -> T:
        try:
            return known[kind]
        except KeyError:
            found = known[kind] = find(kind)
            return found

    return remembering


def remembered_functions(find: Callable[[Any], Iterable[Any]]) -> Callable[[Any], tuple[Any, ...]]:
    """The same for one that finds functions of the class, which may refer to it."""
    references = remembered(lambda kind: tuple(map(weakref.ref, find(kind))))

    @functools.wraps(find)
    def remembering(kind: Any) -> tuple[Any, ...]:
        alive = (reference() for reference in references(kind))
        return tuple(function for function in alive if function is not None)

    return remembering
