"""What each layer's moving statistics are at the end of a record: how far, why, and how long they still need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis import drift
from tb_bnlens.analysis.arrival import NOISE_SIGMAS, arrival, measured
from tb_bnlens.analysis.memory import course_of_memory, start_error, start_memory
from tb_bnlens.analysis.noise import noise_floor
from tb_bnlens.history import Evidence, History
from tb_bnlens.metadata import STATES, Moment, State

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

START_SHARE = 0.25
"""The start is to blame for a lag when it alone would cause this share of it. The estimate stands for a typical
channel of the layer, and the lag that it is held against is the median channel's."""
LARGE_DISTANCE = 0.2
"""Distance of a layer from which three networks lost a factor of ten or more (docs/design.md, Distance and loss)."""
LAST_BATCH = 0.5
"""At or below this momentum the last batch counts for as much as all before."""
SPARSE = "the records are farther apart than the memory of the moving average"
"""Why a lag, or what becomes of it, is not known."""
TOO_FAR_APART = "not known: records too far apart"
"""The same in a table."""


@dataclass(frozen=True)
class LayerTable:
    """Per-layer figures at the end of the record, each [L]; NaN where not measured."""

    names: tuple[str, ...]
    channels: Array
    state: tuple[str, ...]
    momentum: Array
    """The attribute."""
    beta: Array
    """The momentum that the statistics show where it was estimated and differs, else the attribute."""
    effective: Array
    updates: Array
    """NaN where a layer is updated and nobody has counted how often."""
    updates_per_step: Array
    distance: Array
    distance_p95: Array
    error: Array
    """95th percentile over channels of the relative error (``distance.convergence_error``)."""
    error_median: Array
    error_max: Array
    standing: Array
    """Error that the movement of the batch statistics keeps up at its present pace."""
    error_noise: Array
    """Standard deviation of such an error from batch noise alone."""
    converge_updates: Array
    """Updates until 95% of a layer's channels are within tolerance; inf for never, NaN where unknown."""
    converge_updates_worst: Array
    """The same for the worst channel."""
    converge_low: Array
    """80% interval of ``converge_updates``, see ``arrival``; NaN where it is not reliable."""
    converge_high: Array
    sparse: Mask
    """The records are too far apart for an estimate."""
    outdated: Mask
    """So far apart, without a measurement at the present weights: the error is of statistics of long ago."""
    moving: Mask
    """The batch statistics move so much that the layer may never converge at this learning rate."""
    memory: Array
    """Weight of the start in the moving statistics."""
    start_error: Array
    """Relative error that the start alone still causes."""
    noise_mean: Array
    noise_variance: Array
    rate: Array
    """Drift of the batch means an update, in batch standard deviations; 0 where not significant."""
    shift: Array
    shift_noise: Array
    permanent_lag: Array
    lag_cosine: Array
    nonfinite: Array
    collapsed: Array
    between_within: Array
    attribution: Array
    validation_distance: Array
    replica_spread: Array
    alternation: Array
    scatter: Array
    """Distance of a single batch's statistics from their mean, from noise alone."""
    tolerance: float

    def is_state(self, *names: str) -> Mask:
        """Layers in one of these states."""
        return np.asarray([s in names for s in self.state], dtype=np.bool_)

    @property
    def updating(self) -> Mask:
        """Layers whose finite moving statistics follow the batches."""
        return np.asarray(self.is_state("updating", "unknown") & ~(self.updates == 0) & ~(self.nonfinite > 0))

    @property
    def lagging(self) -> Mask:
        """Updating layers whose error is over the tolerance and over what batch noise explains."""
        noise = np.where(np.isnan(self.error_noise), 0.0, self.error_noise)
        return np.asarray(self.updating & (self.error > np.maximum(self.tolerance, NOISE_SIGMAS * noise)))

    @property
    def starting(self) -> Mask:
        """Lagging layers whose start explains the lag."""
        return np.asarray(self.lagging & (self.start_error >= START_SHARE * self.error_median))

    @property
    def drifting(self) -> Mask:
        """Lagging layers that have forgotten their start and whose batch statistics move significantly.

        A drift whose lag batch noise hides in the moving mean is not what makes them lag. Where the shift cannot be
        told from noise for want of bursts, a lag without a start is all there is to go by.
        """
        hidden = self.permanent_lag < noise_floor(self.noise_mean, self.beta)
        moves = ((self.rate > 0) & ~hidden) | np.isnan(self.rate)
        # What keeps little but the last batch scatters as that does, and is not behind.
        return np.asarray(self.lagging & ~self.starting & moves & (self.beta > LAST_BATCH))

    @property
    def wandering(self) -> Mask:
        """Layers whose batch means moved, from the long pool to the short one, by more than one batch scatters.

        Their drift continues inside any pool, so that recalibrated statistics are old too.
        """
        moved = (self.shift >= self.noise_mean) & (self.shift >= self.tolerance)
        return np.asarray(self.updating & ~self.starting & (self.rate > 0) & moved)

    def reason(self, i: int) -> str:
        """Why no number of steps is given for a layer, or why none are needed."""
        if self.nonfinite[i] > 0:
            return "never: NaN and infinity do not decay"
        # Channels that hardly vary have no relative error.
        off = self.distance[i] if np.isnan(self.error[i]) else self.error[i]
        if np.isnan(off):
            return "not measured yet"
        if off <= self.tolerance:
            return "within tolerance"
        if self.state[i] in ("frozen", "inference_mode", "never_updated"):
            return f"never: the statistics are constant ({self.state[i].replace('_', ' ')})"
        if np.isnan(self.error[i]):
            return "not measured: its channels hardly vary" if self.collapsed[i] else "not measured yet"
        if self.sparse[i]:
            return TOO_FAR_APART
        if self.error[i] <= NOISE_SIGMAS * self.error_noise[i]:
            return "within batch noise"
        if self.momentum[i] >= 1.0:
            return "never: momentum 1 keeps the start"
        if self.moving[i]:
            never = "never" if np.isinf(self.converge_updates[i]) else "may never converge"
            return f"{never} at this learning rate: the statistics keep moving, for a lag of {self.standing[i]:.2g}"
        if np.isnan(self.updates[i]):
            return "not reliable: a single check does not tell how the statistics move"
        if np.isnan(self.converge_low[i]):
            return "not reliable yet: too few updates to tell how the statistics move"
        return ""


def latest(history: History, name: str) -> Array:
    """The last known value of a row for each layer, [L]; rows such as the noise are not measured at each record."""
    if not len(history.steps):
        return np.full(len(history.manifest.layers), np.nan)
    return np.asarray(measured(history, name, _last(history))[0])


def _last(history: History) -> NDArray[np.int64]:
    return np.arange(len(history.steps))[-1:]


AT_PRESENT = (
    *("distance_rms", "distance_p95", "error_p50", "error_p95", "error_max"),
    *("noise_mean", "noise_variance", "between_within"),
)
"""Rows that a measurement on many batches has of the present weights. Windows are of past ones, and one that is longer
than the memory of the average recovers the average itself. The noise that bursts measure holds the movement of the
weights, and is of weights of then."""
READ = {
    "distance": "distance_rms",
    "distance_p95": "distance_p95",
    "error_median": "error_p50",
    "error_max": "error_max",
    "noise_mean": "noise_mean",
    "noise_variance": "noise_variance",
    "shift": "shift",
    "shift_noise": "shift_noise",
    "lag_cosine": "lag_cosine",
    "between_within": "between_within",
    "attribution": "attribution",
    "validation_distance": "validation_distance_rms",
    "replica_spread": "replica_spread",
    "alternation": "call_alternation",
}
"""Field of the table -> row of the record that it is read from."""
COUNTED = {"nonfinite": "channels_nonfinite", "collapsed": "channels_collapsed"}
"""The same, where what was not counted is 0."""
USED = ("state", "batch_mean_rms", "batch_variance_gm", "shift_span")
"""Rows that other figures are computed from."""


def table(history: History, evidence: Evidence | None = None) -> LayerTable:
    """Read the table from a history, [L] each, and from the measurement on many batches where there is one."""
    layers = history.manifest.layers
    nothing = np.full(len(layers), np.nan)
    present: dict[str, Array] = {}
    if evidence is not None:
        present = {name: evidence.layers[name] for name in AT_PRESENT if name in evidence.layers}
        present["pool_updates"] = np.full(len(layers), float(len(evidence.batch_sizes)))
    row = _rows(history, present)
    found = arrival(history, _last(history), present=present)
    attribute = np.array([layer.momentum for layer in layers], np.float64)
    channels = np.array([layer.channels for layer in layers], np.float64)
    codes = np.nan_to_num(row["state"]).astype(int)

    def of(values: Array, unrecorded: Array = nothing) -> Array:
        return values[-1] if len(values) else unrecorded

    beta, updates = of(found.beta, attribute), np.nan_to_num(of(found.updates))
    course = _course_of_memory(history, attribute, beta)
    memory = of(course, start_memory(beta, updates))
    start = _start(history, row, course)
    for check in (e for e in history.evidence if e.moment == Moment.CHECK):
        # Nobody has counted the updates; the statistics themselves tell what is left of mean 0 and variance 1.
        updates = np.where(codes == State.UPDATING.position, np.nan, 0.0)
        memory = check.layers.get("start_left", nothing)
        start = start_error(row["batch_mean_rms"], row["batch_variance_gm"], 0.0, 1.0, memory, 1.0)
    per_step = _updates_per_step(history)
    rate = drift.rate(row["shift"], row["shift_noise"], row["shift_span"], channels) / per_step
    sparse = _flags(found.sparse, len(layers))
    read: dict[str, Any] = {field: row[name] for field, name in READ.items()}
    read |= {field: np.nan_to_num(row[name]) for field, name in COUNTED.items()}
    return LayerTable(
        **read,
        names=tuple(layer.name for layer in layers),
        channels=channels,
        state=tuple(STATES[c] if 0 <= c < len(STATES) else State.UNKNOWN for c in codes),
        momentum=of(found.momentum, attribute),
        beta=beta,
        effective=of(found.effective),
        updates=updates,
        updates_per_step=per_step,
        error=of(found.error),
        standing=of(found.lag),
        error_noise=of(found.error_noise),
        converge_updates=of(found.steps),
        converge_updates_worst=of(found.steps_worst),
        converge_low=of(found.low),
        converge_high=of(found.high),
        sparse=sparse,
        outdated=sparse & np.isnan(present.get("error_p95", nothing)),
        moving=_flags(found.moving, len(layers)),
        memory=memory,
        start_error=start,
        rate=rate,
        permanent_lag=drift.permanent_lag(rate, beta),
        # A relative error of the variance counts half in the standard deviation.
        scatter=np.hypot(of(found.single_mean), 0.5 * of(found.single_variance)),
        tolerance=history.manifest.tolerance,
    )


def _rows(history: History, present: Mapping[str, Array]) -> dict[str, Array]:
    """Row -> value for each layer, [L]: of the present weights where that was measured, else the last recorded."""
    rows = {name: latest(history, name) for name in (*READ.values(), *COUNTED.values(), *USED)}
    fresh = {name: value for name, value in present.items() if name in rows}
    return rows | {name: np.where(np.isnan(value), rows[name], value) for name, value in fresh.items()}


def _flags(values: Mask, layers: int) -> Mask:
    return values[-1] if len(values) else np.zeros(layers, np.bool_)


def _updates_per_step(history: History) -> Array:
    """As counted over the record; calls of a layer in one step where that does not tell."""
    calls = np.array([max(layer.calls, 1) for layer in history.manifest.layers], np.float64)
    steps, updates = history.steps, history.row("updates")
    if len(steps) < 2 or steps[-1] <= steps[0]:
        return calls
    counted = (updates[-1] - updates[0]) / (steps[-1] - steps[0])
    return np.where(counted > 0, counted, calls)


def _course_of_memory(history: History, attribute: Array, beta: Array) -> Array:
    """What is left of the start at each record, [R, L]: by the momentum that the layers had when it was recorded.

    Args:
        history: the run.
        attribute: the momentum in the manifest, [L].
        beta: what the statistics show at the end, [L], which stands in for a momentum that was never set otherwise.
    """
    set_to = history.row("momentum").astype(np.float64)
    set_to = np.where(np.isnan(set_to), attribute, set_to)
    constant = (set_to == set_to[-1:]).all(0)
    updates = np.nan_to_num(history.row("updates").astype(np.float64))
    return course_of_memory(np.where(constant, beta, set_to), np.maximum.accumulate(updates, axis=0))


def _start(history: History, row: Mapping[str, Array], memory: Array) -> Array:
    """Error that the start alone still causes: by the statistics then and now, and by the error first measured.

    Args:
        history: the run.
        row: last known values of the rows, [L] each.
        memory: what is left of the start at each record, [R, L].
    """
    if not len(history.steps):
        return np.full(memory.shape[1], np.nan)
    m0 = history.row("moving_mean_rms")[0].astype(np.float64)
    s0 = history.row("moving_variance_gm")[0].astype(np.float64)
    by_statistics = start_error(row["batch_mean_rms"], row["batch_variance_gm"], m0, s0, memory[-1], 1.0)
    # Channels on both sides of their start cancel in a layer's mean; the first error measured does not have that.
    errors = history.row("error_p50")
    known = ~np.isnan(errors)
    first, every = known.argmax(0), np.arange(memory.shape[1])
    with np.errstate(all="ignore"):
        by_first = errors[first, every] * np.clip(memory[-1] / memory[first, every], 0.0, 1.0)
    return np.asarray(np.fmax(by_statistics, np.where(known.any(0), by_first, np.nan)))
