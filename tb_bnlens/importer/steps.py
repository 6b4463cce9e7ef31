"""The step that a file's name carries."""

from __future__ import annotations

import re
from dataclasses import dataclass

STEP = re.compile(r"(?:global_?step|steps?|iter(?:ation)?s?|updates?)[-_=. ]*(\d+)", re.IGNORECASE)
EPOCH = re.compile(r"(?:epochs?|(?<![a-z])ep?)[-_=. ]*(\d+)", re.IGNORECASE)
DECIMAL = re.compile(r"(?<!\d)\d+\.\d+")
ALONE = re.compile(r"(?<![a-zA-Z\d])\d+(?!\d)")
ANY = re.compile(r"\d+")


@dataclass(frozen=True)
class NamedNumber:
    """A number in a name and what the name calls it."""

    number: int
    is_step: bool
    """The name says so: ``step_1200``. Otherwise it is an epoch or some other count of saves."""


def number_in(name: str) -> NamedNumber | None:
    """The number by which a series of files is numbered.

    Example:
        >>> number_in("model-epoch_03-val_0.41"), number_in("step=1200"), number_in("weights.05-0.31")
        (NamedNumber(number=3, is_step=False), NamedNumber(number=1200, is_step=True), \
NamedNumber(number=5, is_step=False))
        >>> number_in("best") is None
        True
    """
    for pattern, is_step in ((STEP, True), (EPOCH, False)):
        if match := pattern.search(name):
            return NamedNumber(int(match[1]), is_step)
    # A decimal is a metric, and a number that is grown together with a word is part of it: resnet50.
    rest = DECIMAL.sub(" ", name)
    found = ALONE.findall(rest) or ANY.findall(rest)
    return NamedNumber(int(found[-1]), False) if found else None
