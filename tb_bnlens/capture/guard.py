"""A fault of the lens never stops training: it warns once, says what is not recorded, and continues."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tb_bnlens.capture.errors import NotEvaluated, Refused
from tb_bnlens.capture.reasons import cause_in_pass
from tb_bnlens.capture.signals import of_handler
from tb_bnlens.warning import warn_user

RECORD, LOSSES, VALIDATION = "this run", "the paired losses", "the losses on validation data"
"""Parts of a recording that can be given up on their own; the others are named where they are measured."""
START, NOTHING = "what the run begins with", "anything of this run"
_GIVEN_UP = {
    NOTHING: "BN Lens has not recorded {part}: {reason}",
    RECORD: "BN Lens does not record {part} any further: {reason}",
    LOSSES: "BN Lens cannot measure {part}, and records the statistics alone: {reason}",
}
_LEFT_OUT = "BN Lens leaves out {part}: {reason}"


def weakly(method: Callable[..., None]) -> Callable[..., None]:
    """A bound method that does not keep its object alive, and does nothing without it.

    A recorder that is referred to in a circle would keep the user's model until garbage is collected.
    """
    bound = weakref.WeakMethod(method)

    def call(*args: Any) -> None:
        alive = bound()
        if alive is not None:
            alive(*args)

    return call


class NotRecorded(Exception):
    """A run cannot be recorded, or no further; the message says why and what to do."""


class Guard:
    """Runs parts of the recording so that their faults stay inside.

    Args:
        raises: let faults out, for tests.
        note: called with (part, sentence) when a part is given up.
    """

    def __init__(self, raises: bool, note: Callable[[str, str], None]):
        self._raises = raises
        self._note = note
        self.given_up: dict[str, str] = {}
        """Part -> why it is not recorded any more."""

    @property
    def strict(self) -> bool:
        """Whether faults are let out, for tests."""
        return self._raises

    def works(self, part: str) -> bool:
        """Whether this part has not been given up."""
        return part not in self.given_up

    def warn_of(self, part: str, reason: str) -> None:
        """Warn that a part has not been measured so far, without giving it up."""
        warn_user(f"{_sentence(part, reason.rstrip('. '))}. Training continues unchanged.")

    def give_up(self, part: str, reason: str, warn: bool = True) -> None:
        """Do not record a part any more; warns the first time."""
        if part in self.given_up:
            return
        self.given_up[part] = reason = reason.rstrip(". ")
        sentence = _sentence(part, reason)
        if warn:
            warn_user(f"{sentence}. Training continues unchanged.")
        # What keeps the note may be what has failed.
        with contextlib.suppress(Exception):
            self._note(part, f"{sentence}.")

    def fault(self, part: str, error: Exception, argument: str = "") -> None:
        """Give a part up for an exception; raises it where faults are let out.

        Args:
            part: what is given up.
            error: why.
            argument: that of the user whose data were in use, if any.
        """
        of = argument and f"{argument}: "
        if isinstance(error, NotEvaluated):
            # A known limit is no fault: it is noted in the record. The user is warned only if an argument cannot
            # be honoured.
            refused = isinstance(error, Refused)
            self.give_up(part, f"{of if refused else ''}{error}", warn=refused)
        elif self._raises:
            raise error
        elif isinstance(error, NotRecorded):
            # Whatever was being written: nothing else can be.
            self.give_up(RECORD, str(error))
        else:
            self.give_up(part, of + cause_in_pass(error))

    @contextlib.contextmanager
    def __call__(self, part: str, argument: str = "", but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Keep faults of the block inside; the part is given up after one.

        Args:
            part: what is given up.
            argument: see ``fault``.
            but: errors that are let out.
        """
        try:
            # The statistics of a training that diverges overflow. They are not finite and are shown as that; NumPy
            # need not warn the user of them.
            with np.errstate(all="ignore"):
                yield
        except but:
            raise
        except Exception as error:
            raised = of_handler(error)
            if raised is not None:
                raise raised from None
            self.fault(part, error, argument)


def _sentence(part: str, reason: str) -> str:
    return _GIVEN_UP.get(part, _LEFT_OUT).format(part=part, reason=reason)
