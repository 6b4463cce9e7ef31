"""What a cause has to say: the parts of one file of this folder."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.metadata import FLAX, KERAS, KERAS_2, TORCH

TEXTS = ("name", "title", "failure_title", "description", "absent")
"""Parts of the words that are the same in every run."""


@dataclass(frozen=True)
class Evidence:
    """One number beside the value that it is compared with."""

    label: str
    value: float | str | None
    limit: float | str | None = None
    unit: str = ""
    against: str = "threshold"
    """What the limit is."""

    @property
    def known(self) -> bool:
        """Whether there is a value to show."""
        return self.value is not None and not (isinstance(self.value, float | np.floating) and math.isnan(self.value))


@dataclass(frozen=True)
class Said:
    """The text of one decided cause."""

    summary: str
    reason: str = ""
    """Its place in the verdict, after the sentence on the losses; empty: the summary."""
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    rescue: str = ""
    """Code of the record's framework that repairs this model; runs as printed, given ``model`` and ``data``."""
    rescued: str = ""
    """The pass that shows what inference is with the rescue in effect; empty where none does."""
    fix: str = ""
    """Code for the next training; runs as printed."""
    next: str = ""
    """What to expect if the fix was right."""


@dataclass(frozen=True)
class Words:
    """The words of one cause. They hold no limit: what is compared was decided before.

    Raises:
        ValueError: a part that users read is empty.
    """

    name: str
    """The cause as a noun, for lists: ``"drift"``."""
    title: str
    """A statement that is true of every run that passes."""
    failure_title: str
    """What is wrong, without blame."""
    description: str
    """What is compared, and why it matters."""
    absent: str
    """Why it does not apply."""
    passed: Callable[[Facts, Decision], str]
    """Why it passes, with the number that was measured. It also rules the cause out where another one is named."""
    failed: Callable[[Facts, Decision], Said]
    unknown: Callable[[Facts], str] = lambda _: "The record does not hold what is needed."
    """What is missing where it was not evaluated."""
    in_torch: Mapping[str, str] = field(default_factory=dict)
    """Texts among the above that differ for a PyTorch model."""
    in_flax: Mapping[str, str] = field(default_factory=dict)
    """Texts that differ for a flax model; its momentum is as in Keras, its modes as in PyTorch."""

    def __post_init__(self) -> None:
        for part in TEXTS:
            if not str(getattr(self, part)).strip():
                raise ValueError(f"words of {self.name or '?'}: {part} is empty; it is shown to users")

    def of(self, framework: str) -> Words:
        """The words for a record of this framework."""
        if framework in (KERAS, KERAS_2):
            return self
        own = {TORCH: self.in_torch, FLAX: self.in_flax}[framework]
        texts: dict[str, Any] = {name: as_running(getattr(self, name)) for name in TEXTS} | dict(own)
        return replace(self, **texts)


def as_running(text: str) -> str:
    """A sentence with the nouns of PyTorch and flax: what Keras calls moving statistics are running ones."""
    return re.sub(r"\b([Mm])oving (?=statistics?\b|means?\b|variances?\b)", _running, text)


def _running(moving: re.Match[str]) -> str:
    return "Running " if moving[1] == "M" else "running "
