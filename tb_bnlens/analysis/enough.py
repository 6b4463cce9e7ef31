"""Whether a look at some batches leaves anything that more batches would have to explain."""

from __future__ import annotations

from tb_bnlens.analysis import metrics
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.loss_gap import ERROR_HARM, NOTE_HARM, STANDARD_ERRORS, WARNING_HARM
from tb_bnlens.history import History


def is_calm(history: History) -> bool:
    """Whether what inference may lose is surely no more than worth a note, whatever noise hides of it.

    It is held against batch statistics and against recalibrated ones.
    """
    facts = Facts(history)
    m = facts.measured
    if m is None:
        return False

    def at_most(other: str) -> float:
        gap = m.gap("inference", other)
        in_metrics = metrics.apparent_harm(m.passes["inference"], m.passes[other]) if gap.known else 0.0
        return max(gap.harm, in_metrics, facts.losses.harm(gap.value + STANDARD_ERRORS * gap.uncertainty))

    # New batches replace the ones that the network knows by heart, and their losses are noisier.
    rivals = ("recombined", "batch") if m.rival == "recombined" else (m.rival,)
    return min(map(at_most, rivals)) < WARNING_HARM and at_most("recalibrated") < WARNING_HARM


def is_grave(history: History) -> bool:
    """Whether inference surely does the harm of an error."""
    facts = Facts(history)
    m = facts.measured
    if m is None:
        return False
    gap = m.gap("inference", m.rival)
    return bool(facts.losses.harm(gap.value - STANDARD_ERRORS * gap.uncertainty) >= ERROR_HARM)


def may_suffice(history: History) -> bool:
    """Whether the essential passes alone may show all there is."""
    return is_calm(history) or is_grave(history)


def leaves_nothing(history: History, rescued: float | None) -> bool:
    """Whether this inference loss is as good as that with batch statistics, but for less than a note.

    Args:
        history: of the look.
        rescued: inference loss that was measured with a rescue, None where none was.
    """
    facts = Facts(history)
    m = facts.measured
    return m is not None and rescued is not None and facts.losses.harm(rescued - m.mean(m.rival)) < NOTE_HARM
