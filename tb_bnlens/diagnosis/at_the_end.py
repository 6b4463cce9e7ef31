"""Conditions on the end of a run: the last batch, exchanged weights, statistics moved from outside."""

from __future__ import annotations

import math

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.exchanged import Exchange
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.lag import LARGE_DISTANCE
from tb_bnlens.analysis.loss_gap import WARNING_HARM
from tb_bnlens.diagnosis.cause import Mask
from tb_bnlens.diagnosis.conditions import (
    INFO,
    NONE,
    PASTED,
    WARNING,
    no_layers,
    of_part,
    of_rest,
    over_time,
    whole_run,
)
from tb_bnlens.diagnosis.severity import Severity, of_gap, of_harm
from tb_bnlens.metadata import EventKind

OUTLIER = 3.0
"""The last batch is an outlier when its distance is this many times that of usual batches."""
LAST_BATCH_SHARE = 0.05
"""Disturbance of the moving statistics, (1 - momentum) * distance, from which it can matter; as ``SCATTER``."""
DEVIATIONS = 5.0
"""The last probe stands out at this many robust standard deviations above those before it."""
LONGER_HELPS = 0.75
"""Averaged weights resemble a long stretch of training, so a longer average of the statistics does better, here by a
quarter; where weights drift a shorter one does."""


def short_batches(f: Facts) -> Mask:
    """Layers in which the last batch of an epoch is an outlier that the moving statistics feel."""
    return (f.last_batch > OUTLIER * f.usual_batch) & (f.last_batch_left >= LAST_BATCH_SHARE)


def moved_by_last_batch(f: Facts, _where: Mask) -> Severity:
    """How much worse inference is right after the last batch."""
    if f.parts is not None and f.at_last_step and f.rest_is == "":
        return of_part(f, f.parts.rest)
    moved = f.loss_after_last_batch
    cost = of_harm(0.0 if math.isnan(moved) else f.losses.harm(moved))
    unseen = not f.evaluated and robust.largest(f.last_batch_left) >= LARGE_DISTANCE
    return WARNING if cost is NONE and unseen else cost


def exchange_known(f: Facts) -> bool:
    """There are probes before and after the exchange, or it was measured at the end."""
    return over_time(f) and (f.exchange is not None or f.parts is not None)


def exchanged(f: Facts) -> Mask:
    """The weights after the last step are not the ones of the statistics."""
    return whole_run(exchange_cost(f, whole_run(True)) > INFO)


def exchange_cost(f: Facts, where: Mask) -> Severity:
    """What the exchange costs; where it was measured, no more than what statistics of the present weights undo."""
    if f.parts is not None and f.rest_is == "exchanged":
        return of_rest("exchanged")(f, where)
    told = NONE if f.exchange is None else exchange_severity(f.exchange, noisy=f.lowest_momentum <= PASTED)
    if f.parts is None:
        return told
    sudden = f.rest_is == "" and told > INFO
    return of_part(f, f.parts.rest) if sudden else NONE


def exchange_severity(x: Exchange, noisy: bool = False) -> Severity:
    """The last probe stands out, or the weights' own statistics do better and a long average explains it.

    Where the moving statistics are noisy, longer averages do better in any case.
    """
    own = NONE if math.isnan(x.present) else of_gap(x.over_present)
    sudden = all(d > DEVIATIONS and h < WARNING_HARM for d, h in zip(x.deviations, x.usual_harm, strict=True))
    stands_out = sudden and x.pooled_over_batch.at_least(WARNING_HARM)
    if own >= WARNING:
        stands_out = stands_out or x.announced
    elif not math.isnan(x.present):
        # One probe stands out by chance; the weights' own statistics have to do better, too.
        stands_out = False
    averaged = x.longer < LONGER_HELPS * x.newest and x.usual_harm[1] < WARNING_HARM and not noisy
    foreign = own if x.announced or averaged else NONE
    return max(of_gap(x.over_batch) if stands_out else NONE, min(foreign, WARNING))


def moved_outside(f: Facts) -> Mask:
    """Layers whose statistics something else than training steps has moved."""
    return no_layers(f) if f.parts is None else f.parts.outside


def outside_since(f: Facts) -> int | None:
    """First step after which the statistics were moved outside training steps."""
    return min((e.step for e in f.manifest.events if e.kind == EventKind.OUTSIDE), default=f.leap.by or None)
