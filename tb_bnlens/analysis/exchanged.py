"""Weights exchanged at the end of training: the probe after the last step against those during training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis import replays, robust
from tb_bnlens.analysis.lag import LayerTable
from tb_bnlens.analysis.loss_gap import Gap, Losses
from tb_bnlens.history import History
from tb_bnlens.metadata import EventKind

LEAST_BEFORE = 3
"""Probes before the last one that show what is usual."""


@dataclass(frozen=True)
class Exchange:
    """The last probe, on the weights as they are after training."""

    announced: bool
    """The record says that averaged weights were put in."""
    inference: float
    recalibrated: float
    """Loss on the statistics of the last batches of training."""
    present: float
    """Loss on statistics of the present weights, NaN where it was not measured."""
    over_batch: Gap
    """Inference minus batch statistics at the last probe."""
    pooled_over_batch: Gap
    """Recalibrated minus batch statistics at the last probe."""
    usual: tuple[float, float]
    """Medians of the two before the last probe."""
    usual_harm: tuple[float, float]
    deviations: tuple[float, float]
    """How far the last two stand above the usual, in robust standard deviations."""
    over_present: Gap
    """The better of inference and recalibrated, minus the loss on the present weights' own statistics."""
    longer: float
    """Least loss replayed at a higher momentum than the layers', NaN where none was."""

    @property
    def newest(self) -> float:
        """The better of inference and recalibrated."""
        return min(self.inference, self.recalibrated)


def compare(history: History, losses: Losses, layers: LayerTable) -> Exchange | None:
    """Read the exchange, None without a probe after the last step or with too few before it.

    One probe before it is enough where the record says that the weights were exchanged.
    """
    announced = any(e.kind == EventKind.AVERAGED and e.step == losses.step for e in history.manifest.events)
    if not losses.evaluated or len(losses.settled) < (1 if announced else LEAST_BEFORE + 1):
        return None
    course = losses.course
    parts = [course[kind] - course["batch"] for kind in ("inference", "recalibrated")]
    if np.isnan([part[-1] for part in parts]).any() or losses.step != history.last_step:
        return None
    usual = [robust.median(part[:-1]) for part in parts]
    last = [Gap(float(x[-1]), 0.0, losses.harm(float(x[-1]), float(course["batch"][-1]))) for x in parts]
    inference, pooled, present = (float(course[k][-1]) for k in ("inference", "recalibrated", "recalibrated_now"))
    over = min(inference, pooled) - present
    return Exchange(
        announced=announced,
        inference=inference,
        recalibrated=pooled,
        present=present,
        over_batch=last[0],
        pooled_over_batch=last[1],
        usual=(usual[0], usual[1]),
        usual_harm=(losses.harm(usual[0]), losses.harm(usual[1])),
        deviations=(_deviations(parts[0], usual[0]), _deviations(parts[1], usual[1])),
        over_present=Gap(over, 0.0, losses.harm(over, present)),
        longer=_longer(losses, layers),
    )


def _deviations(part: NDArray[np.float64], usual: float) -> float:
    spread = 1.4826 * robust.median(np.abs(part[:-1] - usual))
    above = float(part[-1]) - usual
    return above / spread if spread > 0 else (np.inf if above > 0 else 0.0)


def _longer(losses: Losses, layers: LayerTable) -> float:
    used = float(np.max(layers.beta[layers.updating], initial=0.0))
    return min((losses.replayed[m] for m in replays.longer(losses.replayed, used)), default=np.nan)
