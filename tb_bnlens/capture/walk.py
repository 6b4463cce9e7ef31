"""What Python objects hold, noted and put back into the very same objects."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from tb_bnlens.capture.errors import NotEvaluated

MOST_OBJECTS = 20_000
"""Objects of one walk; each pass makes one. Four of torch's modules with parameters are 25 objects, and 12,500 objects
take 30 ms. Time would not do as a limit: a garbage collection within a walk takes 140 ms."""
LONG = 10_000
"""A container of more elements is data: it is put back, and its elements are not walked."""
MOST_BYTES = 64 * 2**20
"""Of NumPy arrays that a pass could write to, copied for each pass."""
Visit = Callable[["Walk", Any], None]
"""How an object of some type is walked."""


class Walk:
    """What some objects hold, in the order in which they were met."""

    def __init__(self, known: Mapping[type, Visit | None], visit_of: Callable[[type], Visit | None]):
        self._known, self._visit_of = known, visit_of
        self._met: dict[int, Any] = {}
        self._classes: set[int] = set()
        self._waiting: list[Any] = []
        self._restores: list[Callable[[], None]] = []
        self._empty: list[Any] = []
        self._dicts: list[tuple[Any, Any]] = []
        self._lists: list[tuple[Any, list[Any]]] = []
        self._bytes = 0

    def over(self, roots: Sequence[Any]) -> None:
        """Note what these hold, and what can be reached from it.

        Raises:
            NotEvaluated: something cannot be put back, or there are too many objects.
        """
        met, waiting = self._met, self._waiting
        waiting += roots
        while waiting:
            thing = waiting.pop()
            kind = type(thing)
            visit = self._visit(kind)
            if visit is None:
                continue
            if (kind is OrderedDict or kind is dict) and not thing:
                self._empty.append(thing)  # most that a module holds
                continue
            if id(thing) in met:
                continue
            met[id(thing)] = thing
            try:
                visit(self, thing)
            except NotEvaluated:
                raise
            except Exception:  # proxies and lazy objects may raise anything when an attribute is read
                continue
            if len(met) > MOST_OBJECTS:
                raise NotEvaluated(
                    f"the model or loss reaches more than {MOST_OBJECTS:,} Python objects, and an extra pass would "
                    "have to put back each of them; keep data outside of them to have the losses measured"
                )

    def _visit(self, kind: type) -> Visit | None:
        try:
            return self._known[kind]
        except KeyError:
            return self._visit_of(kind)
        except TypeError:  # a metaclass without a hash
            return None

    def is_new(self, cls: type) -> bool:
        """Whether the attributes of a class are not noted yet; they are from now on."""
        new = id(cls) not in self._classes
        self._classes.add(id(cls))
        return new

    def then(self, *things: Any) -> None:
        """Walk these too."""
        self._waiting += things

    def keep(self, restore: Callable[[], None]) -> None:
        """Have this called when the block ends."""
        self._restores.append(restore)

    def dictionary(self, thing: Any) -> None:
        """Note what a dictionary holds, its order included: parameters reach an optimizer in it."""
        if not dict.__len__(thing):
            self._empty.append(thing)
            return
        kept = OrderedDict.copy(thing) if type(thing) is OrderedDict else dict(_methods(thing).items(thing))
        self._dicts.append((thing, kept))
        if len(kept) <= LONG:
            self._waiting += kept.values()

    def sequence(self, thing: Any) -> None:
        """Note what a list holds."""
        kept = list.copy(thing)
        self._lists.append((thing, kept))
        if len(kept) <= LONG:
            self._waiting += kept

    def copied(self, count: int) -> None:
        """Take note of bytes that are copied."""
        self._bytes += count
        if self._bytes > MOST_BYTES:
            raise NotEvaluated(
                f"the model or loss holds more than {MOST_BYTES // 2**20} MiB of NumPy arrays, which an extra pass "
                "could write to; make them read-only (array.flags.writeable = False) to have the losses measured"
            )

    def put_back(self) -> None:
        """Put back all that differs.

        Raises:
            RuntimeError: some of it could not be.
        """
        restore_all("what the model holds", (self._put_back_dicts, self._put_back_lists, *reversed(self._restores)))

    def _put_back_dicts(self) -> None:
        for now in self._empty:
            if dict.__len__(now):
                _methods(now).clear(now)
        for now, kept in self._dicts:
            methods = _methods(now)
            same_keys = are_same(methods.keys(now), kept)
            if same_keys and are_same(methods.values(now), kept.values()):
                continue
            if not same_keys:
                methods.clear(now)
            for key, value in kept.items():
                methods.__setitem__(now, key, value)

    def _put_back_lists(self) -> None:
        for now, kept in self._lists:
            if not are_same(now, kept):
                list.__setitem__(now, slice(None), kept)


def restore_all(what: str, restores: Iterable[Callable[[], Any]]) -> None:
    """Call all of them, whatever one of them raises.

    Raises:
        RuntimeError: one raised.
    """
    failed: list[Exception] = []
    for restore in restores:
        try:
            restore()
        except Exception as error:
            failed.append(error)
    if failed:
        raise RuntimeError(f"{what} could not be put back after an extra pass: {failed[0]!r}")


def are_same(a: Collection[Any], b: Collection[Any]) -> bool:
    """Whether two collections hold the same objects. They are not asked whether they are equal: tensors are not."""
    return len(a) == len(b) and all(map(operator.is_, a, b))


def _methods(dictionary: Any) -> Any:
    """Those of the built-in class, whatever a subclass makes of them."""
    return OrderedDict if isinstance(dictionary, OrderedDict) else dict
