"""Which momentum the replays advise: the largest that does as well as the best, within noise."""

from __future__ import annotations

from collections.abc import Iterable

from tb_bnlens.analysis.loss_gap import NOTE_HARM, WARNING_HARM
from tb_bnlens.analysis.measured import Measured
from tb_bnlens.metadata import replay_row

ROUNDING = 1e-6
"""Momentum values that differ by less are the same one: a record holds it in float32."""


def shorter(momentums: Iterable[float], used: float) -> list[float]:
    """Those with a shorter memory than the momentum in use."""
    return [m for m in momentums if m < used - ROUNDING]


def longer(momentums: Iterable[float], used: float) -> list[float]:
    """Those with a longer memory than the momentum in use."""
    return [m for m in momentums if m > used + ROUNDING]


def advised(measured: Measured, used: float, untried: float | None = None, forgets: float = 1.0) -> float | None:
    """The largest replayed momentum below the one in use that forgets the start and is within noise of the best.

    Within noise is a paired difference that is not significant, or not worth a note. A larger momentum averages more
    of the noise of single batches, so of equals it is the safer one.

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
    left = measured.gap(replay_row(best), measured.rival).harm
    if untried is not None and best == min(lower) > untried and left >= NOTE_HARM:
        return untried
    if not left < WARNING_HARM:
        return None
    apart = {m: measured.gap(replay_row(m), replay_row(best)) for m in lower}
    good = [m for m, gap in apart.items() if not gap.significant or gap.harm < NOTE_HARM]
    return max((m for m in good if m <= forgets), default=max(good) if untried is None else untried)
