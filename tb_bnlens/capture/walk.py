"""A walk over Python objects that notes what they hold, to put it back into the very same objects."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from tb_bnlens.capture.denied import Denied
from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.noted import EMPTY, Noted, Place, methods_of, restore_all
from tb_bnlens.capture.reasons import cause_of

MOST_OBJECTS = 30_000
"""Objects of one walk, which takes 0.03 to 0.5 s; a measurement makes one or two. MobileNetV2 has 1,000, in 3 ms. Time
would not do as a limit: a garbage collection within a walk takes 140 ms."""
LONG = 10_000
"""A container of more elements is data: it is put back when the measurement ends, and its elements are not walked."""
MOST_BYTES = 64 * 2**20
"""Of NumPy arrays and other memory that is copied; those beyond must not be used in a pass."""
UNSURE = (
    "what the model or loss holds changed during an extra pass while another thread ran, and cannot be put back then; "
    "keep it out of the forward pass and the loss, or wait for the thread, to have the losses measured"
)
Visit = Callable[["Walk", Any], None]
"""How an object of some type is walked."""


class Walk:
    """What some objects hold, in the order in which they were met.

    A visit denies what it cannot put back.

    Args:
        known: how objects of a type are walked; None where they are not.
        visit_of: finds that for a type that is not known yet.
        alone: whether no other thread can have changed anything since. Else only what threads do not share is put back.
    """

    def __init__(
        self,
        known: Mapping[type, Visit | None],
        visit_of: Callable[[type], Visit | None],
        alone: Callable[[], bool],
    ):
        self._known, self._visit_of, self._alone = known, visit_of, alone
        self._met: dict[int, Any] = {}
        self._classes: set[int] = set()
        self._waiting: list[Any] = []
        self._own, self._shared, self._long = Noted(), Noted(), Noted()
        self._places: list[Place] = []
        self._bytes = 0
        self._refused = ""
        self._denied = Denied()

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
                self._shared.empty.append(thing)
                continue
            if id(thing) in met:
                continue
            met[id(thing)] = thing
            try:
                visit(self, thing)
            except NotEvaluated:
                raise
            except Exception as error:  # proxies and lazy objects may raise anything when an attribute is read
                self.cannot_put_back(thing, f"whose attributes cannot be read ({cause_of(error)})")
            if len(met) > MOST_OBJECTS:
                raise NotEvaluated(
                    f"the model or loss reaches more than {MOST_OBJECTS:,} Python objects, and an extra pass would "
                    "have to put back each of them; keep data outside of them to have the losses measured"
                )
        self._denied.replace(roots, self._places_of)

    def _visit(self, kind: type) -> Visit | None:
        try:
            return self._known[kind]
        except KeyError:
            return self._visit_of(kind)
        except TypeError:  # a metaclass without a hash
            return None

    # --- what visits ask for -------------------------------------------------------------------------

    def is_new(self, cls: type) -> bool:
        """Whether the attributes of a class are not noted yet; they are from now on."""
        new = id(cls) not in self._classes
        self._classes.add(id(cls))
        return new

    def then(self, holder: Any, *things: Any) -> None:
        """Walk these too, which the holder cannot exchange: it is a tuple, or a bound method."""
        self._waiting += things
        self._denied.held_for_good(holder, things)

    def keep(self, restore: Callable[[], None], own: bool = False, long: bool = False) -> None:
        """Have this called behind each pass.

        Args:
            restore: puts something back.
            own: also where another thread runs code of the user's, which does not use that thing.
            long: it takes long, so only when the measurement ends.
        """
        self._notes(own, long).restores.append(restore)

    def dictionary(self, thing: Any, follow: bool = True, own: bool = False) -> None:
        """Note what a dictionary holds, its order included: parameters reach an optimizer in it."""
        if not dict.__len__(thing):
            self._notes(own, False).empty.append(thing)
            return
        kept = dict(OrderedDict.items(thing)) if isinstance(thing, OrderedDict) else dict.copy(thing)
        long = len(kept) > LONG
        self._notes(own, long).dicts.append((thing, kept))
        if follow and not long:
            self._waiting += kept.values()

    def part(self, attributes: dict[str, Any]) -> None:
        """Note the attributes of a module or layer, and the dictionaries in which it keeps its parts."""
        self.dictionary(attributes, follow=False, own=True)
        for name, value in attributes.items():
            if name.startswith("_") and issubclass(type(value), dict):  # and no proxy of one
                self.dictionary(value, own=True)
            else:
                self._waiting.append(value)

    def sequence(self, thing: Any, own: bool = False) -> None:
        """Note what a list holds."""
        kept = list.copy(thing)
        long = len(kept) > LONG
        self._notes(own, long).lists.append((thing, kept))
        if not long:
            self._waiting += kept

    def _notes(self, own: bool, long: bool) -> Noted:
        return self._long if long else self._own if own else self._shared

    def reach(self, place: Place) -> None:
        """Walk what is held there, which no pass changes."""
        if place.value is not EMPTY:
            self._waiting.append(place.value)
            self._places.append(place)

    def place(self, place: Place) -> None:
        """Note what is held there."""
        self.reach(place)
        self._shared.restores.append(place.put_back)

    def affords(self, count: int) -> bool:
        """Whether so many bytes may be copied, beside those before."""
        if self._bytes + count > MOST_BYTES:
            return False
        self._bytes += count
        return True

    def cannot_put_back(self, thing: Any, why: str) -> None:
        """Deny this object to every pass; see ``Denied.add``."""
        self._denied.add(thing, why)

    # --- each pass -----------------------------------------------------------------------------------

    @property
    def stopped(self) -> str:
        """Why the last pass was ended; empty where it was not."""
        return self._denied.stopped

    def begin(self) -> None:
        """Before a pass: have stand-ins for what is denied.

        Raises:
            NotEvaluated: there is no further pass.
        """
        if self._refused:
            raise NotEvaluated(self._refused)
        self._denied.begin()

    def put_back(self) -> None:
        """Behind a pass: put back all that differs, but for what is long.

        Raises:
            NotEvaluated: it cannot be told whether the pass or another thread has changed something.
            RuntimeError: some of it could not be put back.
        """
        restores, alone = [self._denied.end, self._own.put_back], self._alone()
        restore_all("what the model holds", [*restores, self._shared.put_back] if alone else restores)
        if not alone and self._shared.differs():
            self._refused = UNSURE
            raise NotEvaluated(UNSURE)

    def end(self) -> None:
        """Behind the last pass: put back what is long too. Raises as ``put_back`` does."""
        if self._alone():
            self._long.put_back()

    def _places_of(self, ids: Collection[int]) -> Iterator[Place]:
        """Where the objects with these ids are held."""
        for table, held in (*self._own.dicts, *self._shared.dicts):
            methods = methods_of(table)
            for key in [key for key, value in held.items() if id(value) in ids]:
                yield Place(key, partial(methods.__getitem__, table, key), partial(methods.__setitem__, table, key))
        for row, kept in (*self._own.lists, *self._shared.lists):
            for i in [i for i, value in enumerate(kept) if id(value) in ids]:
                yield Place("", partial(list.__getitem__, row, i), partial(list.__setitem__, row, i))
        yield from (place for place in self._places if id(place.value) in ids)
