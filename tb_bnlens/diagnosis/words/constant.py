"""What the losses say of constant statistics, which training itself may run on."""

from __future__ import annotations

import math
from dataclasses import replace

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis import compositions as of
from tb_bnlens.diagnosis import conditions as on
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.diagnosis.words.phrases import added, loss, modes
from tb_bnlens.diagnosis.words.words import Evidence


def shows(f: Facts, d: Decision) -> bool:
    """Whether other statistics were measured to do better, so that a loss shows the harm."""
    if d.where is None or of.in_vain(f, d.where):
        return False
    return on.constant_cost(f, d.where) > Severity.INFO


def cost(f: Facts, d: Decision, label: str) -> Evidence:
    """What they add to the loss, beside the least that is a warning unless something else makes the severity."""
    told = added(f, label, f.constant_part)
    return told if d.severity <= Severity.INFO or shows(f, d) else replace(told, limit=None)


def in_vain(f: Facts) -> str:
    """That training has learned nothing with these statistics, and that the losses do not show whether they are why."""
    if f.measured is None:
        return ""
    own = loss(f, f.measured.mean(f.measured.trained))
    return (
        f" Training has learned nothing with them: its loss is {own}, and with the targets of other rows it is "
        f"{loss(f, f.typical('mismatched'))}. The losses do not tell whether these statistics are the reason: the "
        "layers behind have learned nothing that other statistics could spoil."
    )


def unfelt(f: Facts) -> str:
    """That the loss shows no harm; where training runs on these statistics too, that it cannot show any."""
    if not f.trains_on_constant:
        return f" The loss does not suffer: {modes(f)}."
    known = f.typical("recalibrated"), f.typical("recalibrated_all")
    told = modes(f)
    if math.isfinite(known[1]):
        in_others = "" if f.constant.all() else " with new statistics in the other layers"
        told = f"inference loss {loss(f, known[0])}{in_others}, {loss(f, known[1])} with new statistics in these"
    return (
        " What they cost cannot be judged from the losses, since training runs on them too and the layers behind have "
        f"learned with them ({told})."
    )
