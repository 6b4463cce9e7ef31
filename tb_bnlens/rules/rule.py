"""The shape of a rule: one file, a ``META``, named limits and a pure ``check`` that returns a ``Finding``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

ARTIFACTS = ("manifest", "losses", "validation", "layers", "batches", "outlook", "history")
"""What a rule can ask for: the manifest, the paired losses on training and on validation data
(``analysis.loss_gap.Losses``), the layers at the end (``analysis.lag.LayerTable``), whether batches are alike
(``analysis.batches.Batches``), the run's steps to converge (``analysis.outlook.Outlook``), and the whole history for
those that look at the course of the run."""


class Status(str, Enum):
    """What became of a rule."""

    PASS = "pass"
    FAIL = "fail"
    NOT_APPLICABLE = "not_applicable"
    NOT_EVALUATED = "not_evaluated"
    ERROR = "error"


class Severity(str, Enum):
    """How much it matters, by the loss."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    NONE = "none"

    @property
    def rank(self) -> int:
        """0 is the gravest."""
        return list(Severity).index(self)


@dataclass(frozen=True)
class Meta:
    """What a rule says of itself. A bad one is refused when its module is imported.

    Raises:
        ValueError: an empty or ill-formed part, or an artifact that does not exist.
    """

    id: str
    """Lower case with hyphens; it is what users name in ``ignore``, so it never changes."""
    title: str
    """Shown when the rule passes: what is well."""
    failure_title: str
    """Shown when it fails: what is wrong, without blame."""
    description: str
    """What is looked at and why it matters."""
    requires: tuple[str, ...]
    """Names of the arguments of ``check``, out of ``ARTIFACTS``."""
    explains: tuple[str, ...] = ()
    """Ids of rules whose failure is a symptom of this one's, unless the symptom is graver."""
    excuses: bool = False
    """It explains graver symptoms too, because their cure is under way or they are meant."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z]+(-[a-z]+)*", self.id):
            raise ValueError(f"rule id {self.id!r}: expected lower-case words joined by hyphens")
        for name in ("title", "failure_title", "description"):
            if not str(getattr(self, name)).strip():
                raise ValueError(f"rule {self.id}: {name} is empty; it is shown to users")
        unknown = [name for name in self.requires if name not in ARTIFACTS]
        if unknown or not self.requires:
            raise ValueError(f"rule {self.id}: requires {unknown or 'nothing'}; known artifacts are {ARTIFACTS}")


@dataclass(frozen=True)
class Evidence:
    """One number with what it is measured against."""

    label: str
    value: float | str | None
    limit: float | str | None = None
    unit: str = ""


@dataclass(frozen=True)
class Finding:
    """What a rule found. Only ``status`` and ``summary`` are needed unless it failed."""

    status: Status
    summary: str
    severity: Severity = Severity.NONE
    layers: tuple[int, ...] = ()
    first_step: int | None = None
    last_step: int | None = None
    steps_to_converge: float | None = None
    """Updates from now; inf is never, None where it does not apply."""
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    ruled_out: tuple[tuple[str, str], ...] = ()
    """Causes that look alike, and the number that rules each out."""
    fix: str = ""
    """Keras code that runs as printed, given ``model`` (and ``data`` where it recalibrates)."""
    next: str = ""
    """What is seen next if the fix was right."""
    headline: str = ""
    """The cause in the run's verdict, after the sentence on the losses; empty: the summary."""

    def __post_init__(self) -> None:
        if self.status is Status.FAIL and self.severity is Severity.NONE:
            raise ValueError(f"a finding that failed needs a severity: {self.summary!r}")


def passed(summary: str) -> Finding:
    """It is well, and why."""
    return Finding(Status.PASS, summary)


def not_applicable(summary: str) -> Finding:
    """There is nothing in this run that the rule is about."""
    return Finding(Status.NOT_APPLICABLE, summary)


def not_evaluated(summary: str) -> Finding:
    """The record does not hold what the rule needs."""
    return Finding(Status.NOT_EVALUATED, summary)
