"""Objects that a pass must not use, since what it does to them cannot be undone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.noted import Place
from tb_bnlens.capture.stand_in import guarded, stand_in


class Stopped(BaseException):
    """A pass uses what is denied again, after it was refused."""


class Denied:
    """Has a stand-in for each of them in every pass, which ends the pass where it is used."""

    def __init__(self) -> None:
        self._reasons: dict[int, str] = {}
        self._when: dict[int, Callable[[], bool]] = {}
        self._calls: dict[int, Callable[..., bool]] = {}
        self._fixed: list[tuple[Any, tuple[Any, ...]]] = []
        self._stand_ins: list[tuple[Place, Any, Callable[[], bool]]] = []
        self._passing = False
        self.stopped = ""
        """Why the last pass was ended; empty where it was not."""

    def add(
        self,
        thing: Any,
        why: str,
        when: Callable[[], bool] | None = None,
        calls: Callable[..., bool] | None = None,
    ) -> None:
        """Deny an object.

        Args:
            thing: the object.
            why: a relative clause.
            when: asked before each pass whether it is denied in that one; in all where it is not given.
            calls: told the arguments of each call of it, whether that call is denied; all use where it is not given.
        """
        self._reasons.setdefault(id(thing), why)
        if when is not None:
            self._when[id(thing)] = when
        if calls is not None:
            self._calls[id(thing)] = calls

    def held_for_good(self, holder: Any, things: tuple[Any, ...]) -> None:
        """Take note that a holder cannot exchange what it holds: it is denied with any of it."""
        self._fixed.append((holder, things))

    def replace(self, roots: Sequence[Any], places: Callable[[Collection[int]], Iterable[Place]]) -> None:
        """Make stand-ins.

        Args:
            roots: what a pass calls.
            places: gives the places that hold one of the objects with these ids.

        Raises:
            NotEvaluated: one of the roots is denied.
        """
        known = 0
        while known < len(self._reasons):
            known = len(self._reasons)
            for holder, things in self._fixed:
                for thing in things:
                    if self._is_always(thing):
                        self.add(holder, f"which holds {self._described(thing)}")
        for root in roots:
            if self._is_always(root):
                raise NotEvaluated(self._reason(root, ""))
        for place in places(self._reasons) if self._reasons else ():
            stop = partial(self._stop, self._reason(place.value, place.name))
            when = self._when.get(id(place.value), _always)
            calls = self._calls.get(id(place.value))
            other = stand_in(place.value, stop) if calls is None else guarded(place.value, stop, calls)
            self._stand_ins.append((place, other, when))

    def begin(self) -> None:
        """Put the stand-ins in their places, before a pass."""
        self.stopped, self._passing = "", True
        for place, other, when in self._stand_ins:
            if when():
                place.put(other)

    def end(self) -> None:
        """Put the objects back behind a pass."""
        self._passing = False
        for place, other, _ in self._stand_ins:
            if place.now() is other:
                place.put(place.value)

    def _is_always(self, thing: Any) -> bool:
        return id(thing) in self._reasons and id(thing) not in self._when and id(thing) not in self._calls

    def _reason(self, thing: Any, name: Any) -> str:
        return (
            f"the model or loss uses {self._described(thing, name)}; keep it out of the forward pass and the loss to "
            "have the losses measured"
        )

    def _described(self, thing: Any, name: Any = "") -> str:
        named = repr(name) if isinstance(name, str) and name else "an object"
        return f"{named} of type {type(thing).__name__}, {self._reasons[id(thing)]}"

    def _stop(self, reason: str) -> None:
        if not self._passing:  # what a pass has kept of a stand-in is used later
            return
        again, self.stopped = self.stopped, reason
        # Code that catches all and tries again would do so for ever.
        raise Stopped(reason) if again else NotEvaluated(reason)


def _always() -> bool:
    return True
