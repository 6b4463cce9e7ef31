"""The only decision: which cause of the table is named, how much it matters, and what lies behind the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.cause import Cause, Mask
from tb_bnlens.diagnosis.severity import Severity, estimated


class Status(str, Enum):
    """What became of a cause in a run."""

    PASS = "pass"
    """It does not show, or it costs nothing."""
    ANOTHER_CAUSE = "another_cause"
    """It shows, and another cause is behind it."""
    FAIL = "fail"
    NOT_APPLICABLE = "not_applicable"
    NOT_EVALUATED = "not_evaluated"
    ERROR = "error"
    """Deciding it crashed; the other causes are not touched."""


@dataclass(frozen=True)
class Decision:
    """What was decided of one cause."""

    cause: Cause
    status: Status
    severity: Severity = Severity.NONE
    """What is shown; none unless it fails."""
    cost: Severity = Severity.NONE
    """What it takes of the loss, without the cap of the severity."""
    layers: tuple[int, ...] = ()
    """Layers that it names, also where another cause is behind it."""
    to: str | None = None
    """Id of the cause behind it."""
    where: Mask | None = None
    """Layers that show it, [L] or []; None where it does not show."""
    share: float = math.nan
    """Share of the gap that its intervention takes away, 0 to 1; NaN where that was not measured."""
    problem: str = ""
    """Why deciding it crashed."""

    @property
    def failed(self) -> bool:
        """Whether the cause is named."""
        return self.status is Status.FAIL


def decide(causes: Sequence[Cause], facts: Facts) -> dict[str, Decision]:
    """Decide every cause of a table.

    First each cause on its own: not applicable, not evaluated, pass or fail. Then, from the top of the table down,
    those behind which another cause lies become ``ANOTHER_CAUSE``.

    Returns:
        Decisions by id, in the order of the table.
    """
    alone = {cause.id: _guarded(cause, facts) for cause in causes}
    decided: dict[str, Decision] = {}
    for cause in causes:
        decided[cause.id] = _behind(alone[cause.id], facts, alone, decided)
    return {name: replace(d, to=_last(d, decided)) for name, d in decided.items()}


def _guarded(cause: Cause, facts: Facts) -> Decision:
    try:
        with np.errstate(all="ignore"):
            return _alone(cause, facts)
    except Exception as e:  # one broken cause must not cost the user the report
        return Decision(cause, Status.ERROR, problem=f"{type(e).__name__}: {e}")


def _alone(cause: Cause, facts: Facts) -> Decision:
    """The decision as if there were no other cause."""
    if not cause.applies(facts):
        return Decision(cause, Status.NOT_APPLICABLE)
    if not cause.known(facts):
        return Decision(cause, Status.NOT_EVALUATED)
    where = cause.shows(facts)
    if not where.any():
        return Decision(cause, Status.PASS)
    cost = cause.cost(facts, where)
    if cause.estimate and not facts.evaluated:
        cost = estimated(getattr(facts.layers, cause.estimate), where)
    noted = cost >= cause.least or cause.note(facts, where)
    if not noted:
        return Decision(cause, Status.PASS, layers=_indices(where), where=where)
    cost = max(cost, Severity.INFO)
    severity = min(cost, cause.most)
    named = where if cause.layers is None else cause.layers(facts, where, severity)
    # The losses of a training that has diverged are those of before.
    told = cause.part is not None and cost > Severity.INFO and not facts.losses.diverged
    share = facts.share(cause.part(facts)) if cause.part and told else math.nan
    return Decision(cause, Status.FAIL, severity, cost, _indices(named), where=where, share=share)


def _behind(d: Decision, facts: Facts, alone: Mapping[str, Decision], decided: Mapping[str, Decision]) -> Decision:
    """The decision in view of the other causes."""
    if d.where is None:
        return d
    for further in d.cause.yields:
        other = alone.get(further.to)
        if other is None or not other.failed:
            continue
        if further.when is not None:
            with np.errstate(all="ignore"):
                yields = further.when(facts, d.where)
        else:
            yields = d.failed and decided[further.to].failed and other.cost >= d.cost
        if yields:
            return replace(d, status=Status.ANOTHER_CAUSE, severity=Severity.NONE, to=further.to)
    return d


def _last(d: Decision, decided: Mapping[str, Decision]) -> str | None:
    """The cause at the end of the chain that begins here."""
    to = d.to
    while to is not None and to in decided and decided[to].to is not None:
        to = decided[to].to
    return to


def _indices(where: Mask) -> tuple[int, ...]:
    """Indices of layers; none for a cause of the run as a whole."""
    return tuple(int(i) for i in np.flatnonzero(where)) if where.ndim else ()
