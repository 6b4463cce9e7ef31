"""PyTorch layers with ``momentum=None``: the plain mean of all batches, those of old weights included."""

from __future__ import annotations

import math

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.in_torch import half_life
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import (
    RELATIVE_ERROR,
    STALE,
    added,
    as_set,
    be,
    hardly_felt,
    loss,
    number,
    part_of,
)
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words


def passed(f: Facts, _d: Decision) -> str:
    """How far the plain means are off."""
    error = robust.largest(f.layers.error[f.cumulative])
    return f"The plain means of all batches are off by a relative error of at most {number(error)}."


def failed(f: Facts, d: Decision) -> Said:
    """What the old batches cost, and the momentum to use."""
    n, advice = len(d.layers), f.advised_momentum
    summary = (
        f"The statistics of {part_of(n, len(f.layers.names))} {be(n)} the plain mean of all batches so far "
        "(momentum=None). Batches of the first, untrained weights count as much as the newest ones, and it takes as "
        "many steps again to halve their part."
    )
    recalibrated = f.typical("recalibrated")
    if d.severity > Severity.INFO and math.isfinite(recalibrated):
        summary += f" With statistics of the present weights, inference loss is {loss(f, recalibrated)}."
    elif f.evaluated:
        summary += hardly_felt(f)
    return Said(
        summary,
        evidence={
            "error": Evidence(
                RELATIVE_ERROR,
                robust.median(f.layers.error[f.cumulative]),
                f.layers.tolerance,
                against="tolerance",
            ),
            "half_life": Evidence("further updates until half of the present average is forgotten", half_life(f)),
            "stale": added(f, STALE, f.stale),
        },
        rescue=code.rescue(f, d.severity),
        rescued="recalibrated",
        fix=code.set_momentum(f, 0.9 if advice is None else advice)
        + "# momentum=None serves where weights stay, as in torch.optim.swa_utils.update_bn.\n",
        next=f"The statistics forget old weights within some {number(10 if advice is None else 1 / (1 - advice))} "
        f"updates (momentum {as_set(f, 0.9 if advice is None else advice):g}).",
    )


WORDS = Words(
    name="cumulative average",
    title="Plain means of all batches serve",
    failure_title="Statistics average over all of training (momentum=None)",
    description="Without a momentum, PyTorch keeps the mean of all batches since the start. It is exact while weights "
    "stay as they are. While they train, its memory grows with the run, and it lags more and more.",
    absent="Every layer has a momentum.",
    passed=passed,
    failed=failed,
)
