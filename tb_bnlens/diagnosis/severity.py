"""How much a cause matters: what share of the loss it takes, in three steps."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis.loss_gap import ERROR_HARM, NOTE_HARM, WARNING_HARM, Gap

ESTIMATE_DISTANCE = 0.1
"""Without losses: the largest layer distance from which three measured networks lost a factor of 2.5 or more. An
estimate is never more than a warning."""


class Severity(IntEnum):
    """In order: a greater one is worse."""

    NONE = 0
    INFO = 1
    WARNING = 2
    ERROR = 3

    @property
    def word(self) -> str:
        """The name in the report: ``"error"``."""
        return self.name.lower()


def of_gap(gap: Gap) -> Severity:
    """Severity of a measured difference of losses; no error where it is ``tentative``."""
    worst = Severity.WARNING if gap.tentative else Severity.ERROR
    for harm, severity in ((ERROR_HARM, worst), (WARNING_HARM, Severity.WARNING), (NOTE_HARM, Severity.INFO)):
        if gap.at_least(harm):
            return severity
    return Severity.NONE


def of_harm(harm: float) -> Severity:
    """Severity of a single difference without a spread: a warning or an error, else none."""
    if harm >= ERROR_HARM:
        return Severity.ERROR
    return Severity.WARNING if harm >= WARNING_HARM else Severity.NONE


def estimated(distance: NDArray[np.float64], where: NDArray[np.bool_]) -> Severity:
    """Severity that some layers' distance makes one expect where no loss was measured."""
    largest = float(np.nanmax(distance[where], initial=0.0))
    return Severity.WARNING if largest >= ESTIMATE_DISTANCE else Severity.INFO
