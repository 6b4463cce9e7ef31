"""A walk over Python objects that notes what they hold, to put it back into the very same objects."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from tb_bnlens.capture.code import functions_called
from tb_bnlens.capture.denied import Denied
from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.noted import EMPTY, LONG, Noted, Place, methods_of, restore_all
from tb_bnlens.capture.packages import may_draw
from tb_bnlens.capture.reasons import cause_of
from tb_bnlens.capture.threads import Company
from tb_bnlens.capture.touch import Held

MOST_OBJECTS = 30_000
"""Objects of one walk, which takes 0.03 to 0.5 s; a measurement makes one or two. MobileNetV2 has 1,000, in 3 ms. Time
would not do as a limit: a garbage collection within a walk takes 140 ms."""
MOST_BYTES = 64 * 2**20
"""Of NumPy arrays and other memory that is copied; those beyond must not be used in a pass."""
NAMES = {id(str)}
"""Types of the keys of most dictionaries, which are not walked; by identity, since a metaclass may define no hash."""
HOLD_NOTHING = frozenset(map(id, (bool, int, float, str, type(None))))
"""Types of most attributes of a module; by identity as well."""
Together = TypeVar("Together", bound=Callable[[], None])
Visit = Callable[["Walk", Any], None]
"""How an object of some type is walked."""


class _Beyond:
    """What only objects of the standard library hold, such as the level of a logger.

    It is put back where no other thread can reach it. It has no stand-ins and is no reason against a pass: such objects
    are used in many ways that change nothing, and by other threads, as a logger is.
    """

    def __init__(self) -> None:
        self.noted = Noted()
        self.met: dict[int, Any] = {}
        self.waiting: list[tuple[Visit, Any]] = []
        self.company: Company | None = None

    def steps(self) -> tuple[Callable[[], None], ...]:
        """What puts it back behind a pass."""
        return self.noted.steps() if self.company is not None and not self.company.disturbed() else ()


class Walk:
    """What some objects hold, in the order in which they were met.

    A visit denies what it cannot put back.

    What is found out of classes is forgotten with the walk: a class may change, and one that was made for a single
    model holds what its methods close over, such as the weights.

    Args:
        visit_of: how objects of a type are walked; None where they are not.
    """

    def __init__(self, visit_of: Callable[[type], Visit | None]):
        self._visit_of = visit_of
        self._visits: dict[int, Visit | None] = {}
        self._functions: dict[int, list[Any]] = {}
        self.may_draw = False
        """Whether a pass may draw from NumPy's global generator."""
        self.generators: list[Any] = []
        """NumPy's generators that are held, other than the global one."""
        self.may_wait = False
        """Whether it may wait for another thread: it uses locks, or code for threads."""
        self.joins = False
        """Whether it may wait for the end of a thread that it starts."""
        self._noted, self._long = Noted(), Noted()
        self._held = Held(empty=self._noted.empty)
        self._company = Company(self._held)
        self._looked = False
        self._once: set[int] = set()
        self._kinds: set[int] = set()
        self._waiting: list[Any] = []
        self._beyond = _Beyond()
        self._places: list[Place] = []
        self._bytes = 0
        self._refused = ""
        self._denied = Denied()

    def over(self, roots: Sequence[Any]) -> None:
        """Note what these hold, and what can be reached from it.

        Raises:
            NotEvaluated: something cannot be put back, or there are too many objects.
        """
        self._waiting += roots
        self._follow()
        if len(self._held.objects) > MOST_OBJECTS:
            raise NotEvaluated(
                f"the model or loss reaches more than {MOST_OBJECTS:,} Python objects, and an extra pass would have to "
                "put back each of them; keep data outside of them to have the losses measured"
            )
        self._denied.replace(roots, self._places_of)
        if self._beyond.waiting:
            self._go_beyond()

    def _follow(self) -> None:
        met, waiting = self._held.objects, self._waiting
        while waiting and len(met) <= MOST_OBJECTS:
            thing = waiting.pop()
            kind = type(thing)
            visit = self._visit(kind)
            if visit is None:
                continue
            if (kind is OrderedDict or kind is dict) and not thing:
                self._noted.empty.append(thing)
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

    def _go_beyond(self) -> None:
        # The other one is what threads must not change.
        self._held = replace(self._held, objects=dict(self._held.objects), empty=self._beyond.noted.empty)
        self._beyond.company = Company(self._held, self._company)
        passed, self._noted, self._long = (self._noted, self._long), self._beyond.noted, Noted()
        try:
            while self._beyond.waiting:
                visit, thing = self._beyond.waiting.pop()
                visit(self, thing)
                # What is too much, or cannot be put back, is left as it is.
                with contextlib.suppress(NotEvaluated):
                    self._follow()
        finally:
            self._noted, self._long = passed
            self._held.objects.update(self._beyond.met)

    def _visit(self, kind: type) -> Visit | None:
        key = id(kind)  # a metaclass may define equality
        try:
            return self._visits[key]
        except KeyError:
            visit = self._visits[key] = self._visit_of(kind)
            if visit is None:
                self.may_draw = self.may_draw or may_draw(kind.__module__)
            return visit

    # --- what visits ask for -------------------------------------------------------------------------

    def is_new(self, thing: Any) -> bool:
        """Whether a class, or what belongs to a module, is not noted yet; it is from now on."""
        new = id(thing) not in self._once
        self._once.add(id(thing))
        if isinstance(thing, type):
            self._held.classes.add(id(thing))
        return new

    def is_first_of_kind(self, thing: Any) -> bool:
        """Whether this was not asked yet of an object of the same class."""
        new = id(type(thing)) not in self._kinds
        self._kinds.add(id(type(thing)))
        return new

    def then(self, holder: Any, *things: Any) -> None:
        """Walk these too, which the holder cannot exchange: it is a tuple, or a bound method."""
        self._waiting += things
        self._denied.held_for_good(holder, things)

    def functions_of(self, thing: Any) -> list[Any]:
        """The functions of an object's class that may run when it is called."""
        kind = type(thing)
        if id(kind) not in self._functions:
            self._functions[id(kind)] = functions_called(kind)
        return self._functions[id(kind)]

    def later(self, visit: Visit, thing: Any) -> None:
        """Walk an object of the standard library when all others are walked; see ``_Beyond``."""
        self._held.objects.pop(id(thing), None)
        if id(thing) not in self._beyond.met:
            self._beyond.met[id(thing)] = thing
            self._beyond.waiting.append((visit, thing))

    def keep(self, restore: Callable[[], None], long: bool = False) -> None:
        """Have this called behind each pass.

        Args:
            restore: puts something back.
            long: it takes long, so only when the measurement ends.
        """
        self._notes(long).restores.append(restore)

    def together(self, kind: Callable[[], Together]) -> Together:
        """What puts back all things of a kind behind each pass; made where there is none yet."""
        notes = self._notes(False)
        if kind not in notes.together:
            notes.together[kind] = made = kind()
            notes.restores.append(made)
        found: Together = notes.together[kind]
        return found

    def dictionary(self, thing: Any, follow: bool = True) -> None:
        """Note what a dictionary holds, its order included: parameters reach an optimizer in it."""
        if not dict.__len__(thing):
            self._noted.empty.append(thing)
            return
        kept = OrderedDict(OrderedDict.items(thing)) if isinstance(thing, OrderedDict) else dict.copy(thing)
        long = len(kept) > LONG
        self._notes(long).dicts.append((thing, kept))
        if follow and not long:
            self._waiting += kept.values()
            if set(map(id, map(type, kept))) != NAMES:
                self._waiting += kept

    def part(self, attributes: dict[str, Any]) -> None:
        """Note the attributes of a module or layer, and the dictionaries in which it keeps its parts."""
        self.dictionary(attributes, follow=False)
        empty, waiting = self._noted.empty, self._waiting
        for name, value in attributes.items():
            kind = type(value)
            if (kind is OrderedDict or kind is dict) and not value:
                empty.append(value)
            elif id(kind) not in HOLD_NOTHING:
                # No proxy of a dictionary is one.
                if name.startswith("_") and issubclass(kind, dict):
                    self.dictionary(value)
                else:
                    waiting.append(value)

    def kind(self, thing: Any) -> None:
        """Note the class of an object, which may assign another one."""
        self._noted.objects.append(thing)
        self._noted.kinds.append(type(thing))

    def sequence(self, thing: Any) -> None:
        """Note what a list holds."""
        kept = list.copy(thing)
        long = len(kept) > LONG
        self._notes(long).lists.append((thing, kept))
        if not long:
            self._waiting += kept

    def _notes(self, long: bool) -> Noted:
        return self._long if long else self._noted

    def reach(self, place: Place) -> None:
        """Walk what is held there, which no pass changes."""
        if place.value is not EMPTY:
            self._waiting.append(place.value)
            self._places.append(place)

    def place(self, place: Place) -> None:
        """Note what is held there."""
        self.reach(place)
        self._noted.restores.append(place.put_back)

    def variable(self, space: dict[str, Any], name: str) -> None:
        """Note what a variable of a module holds."""
        self._held.variables.setdefault(id(space), set()).add(name)
        get, put, drop = (partial(method, name) for method in (space.__getitem__, space.__setitem__, space.__delitem__))
        self.place(Place(name, get, put, drop))

    def affords(self, count: int) -> bool:
        """Whether so many bytes may be copied, beside those before."""
        if self._bytes + count > MOST_BYTES:
            return False
        self._bytes += count
        return True

    def cannot_put_back(
        self,
        thing: Any,
        why: str,
        when: Callable[[], bool] | None = None,
        calls: Callable[..., bool] | None = None,
    ) -> None:
        """Deny this object to every pass, or to some; see ``Denied.add``."""
        self._denied.add(thing, why, when, calls)
        self._held.denied.add(id(thing))

    # --- each pass -----------------------------------------------------------------------------------

    @property
    def stopped(self) -> str:
        """Why the last pass was ended; empty where it was not."""
        return self._denied.stopped

    def look_around(self) -> None:
        """Before a pass, which is not made beside a thread that may change something.

        Raises:
            NotEvaluated: there is no pass.
        """
        if not self._looked:
            self._looked, self._refused = True, self._company.refusal()
        if self._refused:
            raise NotEvaluated(self._refused)

    def begin(self) -> None:
        """Before a pass: have stand-ins for what is denied."""
        self._denied.begin()

    def put_back(self) -> None:
        """Behind a pass: put back all that differs, but for what is long.

        Raises:
            NotEvaluated: another thread has run that may have changed something. There is no further pass.
            RuntimeError: some of it could not be put back.
        """
        self._company.wait_for_new()
        restore_all("what the model holds", [self._denied.end, *self._beyond.steps(), *self._noted.steps()])
        self._refused = self._company.disturbed()
        if self._refused:
            raise NotEvaluated(self._refused)

    def last_steps(self) -> tuple[Callable[[], None], ...]:
        """What puts back what is long, behind the last pass."""
        return self._long.steps()

    def _places_of(self, ids: Collection[int]) -> Iterator[Place]:
        """Where the objects with these ids are held."""
        for table, held in self._noted.dicts:
            methods = methods_of(table)
            for key in [key for key, value in held.items() if id(value) in ids]:
                yield Place(key, partial(methods.__getitem__, table, key), partial(methods.__setitem__, table, key))
        for row, kept in self._noted.lists:
            for i in [i for i, value in enumerate(kept) if id(value) in ids]:
                yield Place("", partial(list.__getitem__, row, i), partial(list.__setitem__, row, i))
        yield from (place for place in self._places if id(place.value) in ids)
