"""Predictions from a record as it stood early, beside what the truth did in the rest of the training; NumPy alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis.arrival import arrival
from tb_bnlens.analysis.lag import table
from tb_bnlens.analysis.last_probes import measure
from tb_bnlens.analysis.outlook import outlook
from tb_bnlens.history import History
from tb_bnlens.reader import open_logdir, read_run

LOOKS = (0.1, 0.2, 0.4)
"""Shares of a training after which it is asked how long it will still take."""


@dataclass(frozen=True)
class Recorded:
    """One training: the lens' record of it, and the truth."""

    history: History
    truth: Mapping[str, NDArray[Any]]


def load(folder: Path, label: str) -> Recorded:
    """A training that ``tests.calibration`` has recorded."""
    with np.load(folder / f"{label}.npz") as arrays:
        truth = dict(arrays)
    return Recorded(read_run(open_logdir(str(folder)), "", label), truth)


def until(history: History, step: float) -> History:
    """The record up to a step."""
    records, probes = (int(np.searchsorted(s, step, "right")) for s in (history.steps, history.loss_steps))
    return replace(
        history,
        steps=history.steps[:records],
        wall_times=history.wall_times[:records],
        layers=history.layers[:records],
        loss_steps=history.loss_steps[:probes],
        loss_wall_times=history.loss_wall_times[:probes],
        losses=history.losses[:probes],
        evidence=(),
    )


def arrival_of(steps: NDArray[Any], excess: NDArray[Any], now: float, stay: float) -> float:
    """Steps from now until a curve is at or under 0 and stays so for ``stay`` steps or to the end; inf for never.

    Between two measurements the crossing is taken as linear in the excess.
    """
    at = np.flatnonzero(steps >= now)
    for i in at:
        ahead = (steps >= steps[i]) & (steps <= steps[i] + stay)
        if np.all(excess[ahead] <= 0):
            if i == at[0]:
                return 0.0
            share = excess[i - 1] / (excess[i - 1] - excess[i]) if excess[i - 1] > 0 else 1.0
            return float(steps[i - 1] + share * (steps[i] - steps[i - 1]) - now)
    return math.inf


@dataclass(frozen=True)
class Prediction:
    """What was said of a layer, or of the loss, at one look, and what came of it; in steps from then on."""

    training: str
    step: int
    layer: int
    low: float
    steps: float
    high: float
    worst: float
    reliable: bool
    observed: float
    """inf where it did not arrive while the training lasted."""
    left: float
    """Steps that were left."""

    @property
    def held(self) -> bool:
        """Whether the interval holds what was observed; one that did not arrive has to be allowed to take longer."""
        return self.high >= self.left if math.isinf(self.observed) else self.low <= self.observed <= self.high

    @property
    def width(self) -> float:
        """high / low."""
        return self.high / max(self.low, 1.0)


def of_layers(label: str, recorded: Recorded, looks: tuple[float, ...] = LOOKS) -> Iterator[Prediction]:
    """Predictions for every layer that is outside the tolerance by its record, the ones that say nothing included."""
    total = float(recorded.truth["steps"][-1])
    for share in looks:
        history = until(recorded.history, share * total)
        now, tolerance = int(history.steps[-1]), history.manifest.tolerance
        said = arrival(history, np.array([len(history.steps) - 1]))
        for i in range(len(history.manifest.layers)):
            if not said.error[0, i] > tolerance:
                continue
            excess = recorded.truth["error_p95"][:, i] - tolerance
            observed = arrival_of(recorded.truth["steps"], excess, now, 1.0 / (1.0 - said.beta[0, i]))
            low, steps, high, worst = (float(row[0, i]) for row in (said.low, said.steps, said.high, said.steps_worst))
            known, left = bool(said.reliable[0, i]), total - now
            yield Prediction(label, now, i, low, steps, high, worst, known, observed, left)


def of_the_loss(label: str, recorded: Recorded, looks: tuple[float, ...] = LOOKS) -> Iterator[Prediction]:
    """The same for the inference loss, by the forecast; the truth is inference at the true statistics."""
    steps, losses = recorded.truth["steps"], recorded.truth["losses"]
    for share in looks:
        history = until(recorded.history, share * float(steps[-1]))
        measured, layers = measure(history), table(history)
        if not measured.forecast or history.last_step is None:
            continue
        # The forecast is of a probe's step, some steps back.
        now = int(history.loss_steps[~np.isnan(history.loss("forecast_0"))][-1])
        said = outlook(history.manifest, measured, layers, now)
        if not said.loss_steps > 0:
            continue
        excess = losses[:, 0] - (1.0 + history.manifest.tolerance) * losses[:, 2]
        observed = arrival_of(steps, excess, now, 1.0 / (1.0 - float(np.median(layers.beta))))
        low, high = said.loss_interval
        known = not (math.isnan(low) or math.isnan(high))
        left = float(steps[-1]) - now
        yield Prediction(label, now, -1, low, said.loss_steps, high, math.nan, known, observed, left)


@dataclass(frozen=True)
class Summary:
    """How a set of predictions did."""

    said: int
    """Predictions with an interval."""
    silent: int
    """Layers outside of the tolerance without an interval."""
    never_came: int
    coverage: float
    below: float
    """Share that arrived before the interval."""
    above: float
    width: float
    """Median factor of high over low; a high end of never is infinite."""
    open: float
    """Share of the intervals whose high end is never."""
    ratio: float
    """Median of observed over predicted steps; one that did not arrive is infinite."""


def summary(predictions: list[Prediction]) -> Summary:
    """The table's figures."""
    said = [p for p in predictions if p.reliable]
    with np.errstate(all="ignore"):
        ratios = [math.inf if math.isinf(p.observed) else p.observed / max(p.steps, 1.0) for p in said]

    def share(chosen: list[bool]) -> float:
        return float(np.mean(chosen)) if chosen else math.nan

    return Summary(
        said=len(said),
        silent=len(predictions) - len(said),
        never_came=sum(math.isinf(p.observed) for p in said),
        coverage=share([p.held for p in said]),
        below=share([p.observed < p.low for p in said]),
        above=share([not p.held and p.observed > p.high for p in said]),
        width=float(np.median([p.width for p in said])) if said else math.nan,
        open=share([math.isinf(p.high) for p in said]),
        ratio=float(np.median(ratios)) if ratios else math.nan,
    )
