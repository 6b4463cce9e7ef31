"""Which momentum the replays advise: a customary one that serves, else the largest that does."""

from __future__ import annotations

from collections.abc import Iterable

from tb_bnlens.analysis.loss_gap import NOTE_HARM, WARNING_HARM
from tb_bnlens.analysis.measured import LEAST, Measured
from tb_bnlens.metadata import replay_row

ROUNDING = 1e-6
"""Momentum values that differ by less are the same one: a record holds it in float32."""

CUSTOMARY = (0.9, 0.99)
"""Defaults of PyTorch and of Keras, as the share that is kept: of momentum values that serve, the ones to expect."""


def preferred(good: Iterable[float]) -> float | None:
    """Of momentum values that serve: the largest customary one, else the largest; None where there is none.

    A larger momentum averages more of the noise of single batches, and changes least of what is in use.

    Example:
        >>> preferred([0.5, 0.9, 0.95]), preferred([0.5, 0.95, 0.97])
        (0.9, 0.97)
    """
    good = list(good)
    return max(customary(good) or good, default=None)


def customary(momentums: Iterable[float]) -> list[float]:
    """The customary ones among them."""
    return [m for m in momentums if any(abs(m - c) < ROUNDING for c in CUSTOMARY)]


def shorter(momentums: Iterable[float], used: float) -> list[float]:
    """Those with a shorter memory than the momentum in use."""
    return [m for m in momentums if m < used - ROUNDING]


def longer(momentums: Iterable[float], used: float) -> list[float]:
    """Those with a longer memory than the momentum in use."""
    return [m for m in momentums if m > used + ROUNDING]


def advised(measured: Measured, used: float, untried: float | None = None, forgets: float = 1.0) -> float | None:
    """A replayed momentum below the one in use that forgets the start and serves; see ``preferred``.

    It serves where it does as well as the best: the paired difference is not significant, or not worth a note. It also
    serves where it leaves no warning and gives away little of what the best gains: the statistics of a replay are those
    of one moment, and the paired difference does not know how far those of another moment would be off.

    Args:
        measured: the passes.
        used: greatest momentum in use.
        untried: what to advise where no replay tells: no lower momentum was replayed, the least one is the best and
            not good yet, or no good one forgets the start. A window that is longer than a memory tells nothing of it,
            so small momentum values are not always replayed.
        forgets: largest momentum that forgets the start within the run.

    Returns:
        None where the best that was replayed would be a warning too, or none was and ``untried`` is None.
    """
    lower = {m: measured.cost(replay_row(m)) for m in shorter(measured.replayed, used)}
    if not lower:
        return untried
    best = min(lower, key=lambda m: lower[m])
    left = {m: measured.gap(replay_row(m), measured.rival).harm for m in lower}
    if untried is not None and best == min(lower) > untried and left[best] >= NOTE_HARM:
        return untried
    if not left[best] < WARNING_HARM:
        return None
    apart = {m: measured.gap(replay_row(m), replay_row(best)) for m in lower}
    little = LEAST * measured.undone(replay_row(best)).size
    good = [
        m
        for m, gap in apart.items()
        if not gap.significant or gap.harm < NOTE_HARM or (left[m] < WARNING_HARM and gap.size < little)
    ]
    found = preferred(m for m in good if m <= forgets)
    return found if found is not None else max(good) if untried is None else untried
