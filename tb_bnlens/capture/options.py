"""The arguments of a recording, checked at construction rather than in the middle of training."""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
import os
from collections.abc import Mapping, Sequence
from typing import Any

from tb_bnlens.capture.reasons import what_is

ON_ERROR = ("warn", "raise")


@dataclasses.dataclass(frozen=True)
class Options:
    """Arguments that ``BNLens`` and ``Recorder`` share.

    Args:
        log_dir: TensorBoard run directory, a string or path.
        validation_data: see ``capture.data``; probed besides the training batch.
        probe_data: probed instead of the training batch.
        overhead: share of training time that recording may take, 0 < overhead <= 1; ``math.inf`` for full density.
        tolerance: relative error of the moving statistics that counts as converged, 0 < tolerance < 1.
        ignore: rule id -> one layer name pattern, or several.
        on_error: ``"warn"`` or ``"raise"``.

    Raises:
        ValueError: one of them is none of these; the message says what to write.
    """

    log_dir: str
    validation_data: Any = None
    probe_data: Any = None
    overhead: float = 0.01
    tolerance: float = 0.1
    ignore: Mapping[str, Sequence[str]] | None = None
    on_error: str = "warn"

    def __post_init__(self) -> None:
        object.__setattr__(self, "log_dir", _path(self.log_dir))
        object.__setattr__(self, "ignore", _patterns(self.ignore))
        if not (_number(self.overhead) and (0 < self.overhead <= 1 or self.overhead == math.inf)):
            raise ValueError(
                f"overhead is {self.overhead!r}; it is a share of training time above 0, up to 1, e.g. 0.01 for 1%, "
                "or math.inf to record at full density"
            )
        if not (_number(self.tolerance) and 0 < self.tolerance < 1):
            raise ValueError(f"tolerance is {self.tolerance!r}; it is a relative error between 0 and 1, e.g. 0.1")
        if self.on_error not in ON_ERROR:
            raise ValueError(f"on_error is {self.on_error!r}; expected one of {ON_ERROR}")

    def arguments(self) -> dict[str, Any]:
        """The arguments by name; data is handed on and not copied."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def require_verbose(value: Any) -> None:
    """Refuse what is no level of printing with ``ValueError``."""
    if not isinstance(value, numbers.Integral):
        raise ValueError(f"verbose is {_shown(value)}; expected 0 to print nothing, or 1")


def require_steps(value: Any) -> None:
    """Refuse what is no number of planned steps with ``ValueError``."""
    if value is not None and not (isinstance(value, numbers.Real) and 0 <= float(value) < math.inf):
        raise ValueError(f"planned_steps is {_shown(value)}; expected the steps of the whole training, or None")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _path(value: Any) -> str:
    if isinstance(value, str | os.PathLike) and os.fspath(value):
        path = str(os.fspath(value))
        if any(ord(character) < 32 for character in path):
            raise ValueError(f"log_dir is {path!r}, which holds a control character; call strip() on what a file gives")
        return path
    hint = "; the model comes with fit" if hasattr(value, "fit") else ""
    raise ValueError(f"log_dir is {_shown(value)}; expected the path of a TensorBoard run, e.g. 'logs/run1'{hint}")


def _patterns(value: Any) -> Mapping[str, tuple[str, ...]] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ValueError(
            f"ignore is {_shown(value)}; expected a dict of rule id -> layer name patterns, "
            "e.g. {'momentum-too-high': ['head*']}"
        )
    # Not imported above: recording without this argument needs no diagnosis.
    from tb_bnlens.diagnosis.causes import CAUSES

    known = [cause.id for cause in CAUSES]
    patterns = {}
    for rule, given in value.items():
        if rule not in known:
            close = difflib.get_close_matches(str(rule), known, 1, 0.4)
            meant = f"did you mean {close[0]!r}?" if close else f"the ids are {', '.join(known)}"
            raise ValueError(f"ignore names {rule!r}, which is not the id of a rule; {meant}")
        # A string is a sequence of one-letter patterns too, and '*' among them would match every layer.
        several = (given,) if isinstance(given, str) else given
        if not isinstance(several, Sequence) or not all(isinstance(pattern, str) for pattern in several):
            raise ValueError(f"ignore[{rule!r}] is {_shown(given)}; expected a layer name pattern or a list of them")
        patterns[rule] = tuple(several)
    return patterns


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | float | None) else what_is(value)
