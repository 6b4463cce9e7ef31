"""Whether a first look at some batches leaves anything that more batches would have to explain."""

from __future__ import annotations

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.loss_gap import NOTE_HARM, STANDARD_ERRORS, WARNING_HARM
from tb_bnlens.history import History


def is_calm(history: History) -> bool:
    """Whether inference is surely as good as it could be, but for what would be worth a note.

    It is held against batch statistics and against recalibrated ones. The difference itself has to be below a note, and
    what noise may hide of it below a warning.
    """
    facts = Facts(history)
    m = facts.measured
    if m is None:
        return False
    gaps = [m.gap("inference", other) for other in (m.rival, "recalibrated")]
    at_most = [facts.losses.harm(gap.value + STANDARD_ERRORS * gap.uncertainty) for gap in gaps]
    return all(gap.harm < NOTE_HARM and most < WARNING_HARM for gap, most in zip(gaps, at_most, strict=True))
