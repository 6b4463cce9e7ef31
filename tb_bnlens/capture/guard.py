"""A fault of the lens never stops training: it warns once, says what is not recorded, and goes on."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator

import numpy as np

from tb_bnlens.capture.errors import NotEvaluated

ON_ERROR = ("warn", "raise")


class Guard:
    """Runs parts of the recording so that their faults stay inside.

    Args:
        on_error: ``"warn"``, or ``"raise"`` for tests.
        note: called with (part, sentence) when a part is given up.

    Raises:
        ValueError: an unknown ``on_error``.
    """

    def __init__(self, on_error: str, note: Callable[[str, str], None]):
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error is {on_error!r}; expected one of {ON_ERROR}")
        self._raise = on_error == "raise"
        self._note = note
        self.given_up: dict[str, str] = {}
        """Part -> why it is not recorded any more."""

    @property
    def strict(self) -> bool:
        """Whether faults are let out, for tests."""
        return self._raise

    def works(self, part: str) -> bool:
        """Whether this part has not been given up."""
        return part not in self.given_up

    def give_up(self, part: str, reason: str, warn: bool = True) -> None:
        """Stop recording a part for good; warns the first time."""
        if part in self.given_up:
            return
        self.given_up[part] = reason
        sentence = f"BN Lens does not record {part}: {reason}"
        if warn:
            warnings.warn(f"{sentence}. Training goes on unchanged.", stacklevel=4)
        self._note(part, sentence)

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Keep faults of the block inside; the part is given up after one."""
        try:
            # The statistics of a training that diverges overflow. What comes of them is not finite and is shown as
            # that; it is nothing that a user should be warned of by NumPy.
            with np.errstate(all="ignore"):
                yield
        except NotEvaluated as reason:
            # Known limits of what can be measured are no fault: they stand in the record, without a warning.
            self.give_up(part, str(reason), warn=False)
        except Exception as error:
            if self._raise:
                raise
            self.give_up(part, f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}")
