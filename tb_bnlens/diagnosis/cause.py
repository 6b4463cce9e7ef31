"""What a row of the table of causes holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.loss_gap import Gap
from tb_bnlens.diagnosis.severity import Severity

Mask = NDArray[np.bool_]


def always(_facts: Facts, _where: Mask) -> bool:
    """In every run that shows it."""
    return True


def never(_facts: Facts, _where: Mask) -> bool:
    """In no run."""
    return False


@dataclass(frozen=True)
class Yields:
    """A cause that lies further back, and when it is named instead.

    Without ``when``: the further cause fails and takes at least as much of the loss. With ``when``: the further cause
    would fail if it stood alone, and the facts say that it is the one behind.
    """

    to: str
    when: Callable[[Facts, Mask], bool] | None = None


def to(*ids: str) -> tuple[Yields, ...]:
    """Causes to yield to where they take at least as much of the loss."""
    return tuple(Yields(name) for name in ids)


@dataclass(frozen=True)
class Cause:
    """A cause as data. It writes no words; ``decide`` reads it, and ``words`` says what was decided.

    Raises:
        ValueError: the id is not lower-case words joined by hyphens.
    """

    id: str
    """What users name in ``ignore``, so it never changes."""
    shows: Callable[[Facts], Mask]
    """Layers that show it, [L], or one value for the run, []."""
    cost: Callable[[Facts, Mask], Severity]
    """How much of the loss it takes."""
    applies: Callable[[Facts], bool]
    """Whether there is anything in the run that the cause is about."""
    known: Callable[[Facts], bool] = lambda _: True
    """Whether the record holds what the decision needs."""
    least: Severity = Severity.WARNING
    """A cost below this is no finding, unless ``note`` says that it is worth one."""
    note: Callable[[Facts, Mask], bool] = never
    """Whether it is worth a note although the loss does not feel it."""
    most: Severity = Severity.ERROR
    """Cap of the severity that is shown; what the cause takes of the loss is not capped."""
    estimate: str | None = None
    """Row of the layer table that gives a severity where no loss was measured."""
    yields: tuple[Yields, ...] = ()
    """Causes that lie further back, the first that holds is named."""
    layers: Callable[[Facts, Mask, Severity], Mask] | None = None
    """Layers to name, where they are not those that show it."""
    steps: Callable[[Facts], float] | None = None
    """Updates that waiting takes, inf where waiting does not help; None where it is no matter of waiting."""
    since: Callable[[Facts], int | None] = lambda _: None
    """First step that shows it."""
    part: Callable[[Facts], Gap] | None = None
    """What its intervention takes away from the inference loss, measured: the cause's share of the gap and what a
    rescue promises, in one number. None where no intervention tells the cause from others."""
    rivals: tuple[str, ...] = ()
    """Causes that look alike. Those that were judged and passed are listed as ruled out, in their own words."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z]+(-[a-z]+)*", self.id):
            raise ValueError(f"cause id {self.id!r}: expected lower-case words joined by hyphens")
