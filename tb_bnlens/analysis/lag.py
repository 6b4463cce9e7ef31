"""What each layer's moving statistics are at the end of a record: how far, why, and how long they still need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis import drift
from tb_bnlens.analysis.convergence import steps_to_converge
from tb_bnlens.analysis.effective import differs
from tb_bnlens.analysis.memory import start_error, start_memory
from tb_bnlens.analysis.noise import noise_floor, pooled_noise
from tb_bnlens.analysis.renewal import renewal
from tb_bnlens.history import Evidence, History
from tb_bnlens.metadata import STATES

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

NOISE_SIGMAS = 4.0
"""An error under this many standard deviations of batch noise is no lag: over the channels of a layer the largest
of some hundred normal values reaches 2.6 on average and 4 once in a hundred times."""
START_SHARE = 0.25
"""The start is to blame for a lag when it alone would cause this share of it. The estimate stands for a typical
channel of the layer, and the lag that it is held against is the median channel's."""
VARIANCE_NOISE = 8.0
"""The variance of n random samples scatters by sqrt((kurtosis - 1) / n) of itself; this is a kurtosis of 9, of channels
that are rarely active. Bursts that measure the noise lie far back where steps are cheap, and the noise of then over a
variance of now can be anything; it is capped at what samples drawn at random give."""
LOOK_BACK = 64
"""Records searched for the last value of a row that is not measured at each record."""
LARGE_DISTANCE = 0.2
"""Distance of a layer from which three measured networks lost a factor of ten or more (DESIGN.md, section 4)."""


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
    updates_per_step: Array
    distance: Array
    distance_p95: Array
    distance_noise: Array
    """Distance that batch noise alone makes of agreement, rms over channels."""
    error: Array
    """95th percentile over channels of the relative error (``distance.convergence_error``)."""
    error_median: Array
    error_max: Array
    renewed: Array
    """Part of ``error`` that the movement of the batch statistics keeps up, and of ``error_max``."""
    renewed_max: Array
    error_noise: Array
    """Standard deviation of such an error from batch noise alone."""
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
    noise_updates: Array
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
        return np.asarray(self.is_state("updating", "unknown") & (self.updates > 0) & ~(self.nonfinite > 0))

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
        return np.asarray(self.lagging & ~self.starting & moves)

    @property
    def wandering(self) -> Mask:
        """Layers whose batch means moved, from the long pool to the short one, by more than one batch scatters.

        Their drift goes on inside of any pool, so that recalibrated statistics are old too.
        """
        moved = (self.shift >= self.noise_mean) & (self.shift >= self.tolerance)
        return np.asarray(self.updating & ~self.starting & (self.rate > 0) & moved)

    @property
    def converge_updates(self) -> Array:
        """Updates until 95% of a layer's channels are within tolerance; inf for never, NaN where unknown."""
        return self._updates(self.error, self.renewed)

    @property
    def converge_updates_worst(self) -> Array:
        """The same for the worst channel."""
        return self._updates(self.error_max, self.renewed_max)

    def _updates(self, error: Array, renewed: Array) -> Array:
        n = steps_to_converge(error, self.beta, self.tolerance, renewed=renewed, age=self.updates)
        noise = np.where(np.isnan(self.error_noise), 0.0, self.error_noise)
        # Under the noise floor an estimate would time the noise, not the lag.
        n = np.where((error > self.tolerance) & (error <= NOISE_SIGMAS * noise), np.nan, n)
        n = np.where((self.permanent_lag > self.tolerance) & self.drifting, np.inf, n)
        constant = self.is_state("frozen", "inference_mode", "never_updated")
        never = (constant & (error > self.tolerance)) | (self.nonfinite > 0)
        return np.asarray(np.where(never, np.inf, n))

    def reason(self, i: int) -> str:
        """Why no number of steps is given for a layer, or why none are needed."""
        if self.nonfinite[i] > 0:
            return "never: NaN and infinity do not decay"
        if np.isnan(self.error[i]):
            return "not measured yet"
        if self.error[i] <= self.tolerance:
            return "within tolerance"
        if self.state[i] in ("frozen", "inference_mode", "never_updated"):
            return f"never: the moving statistics are constant ({self.state[i].replace('_', ' ')})"
        if self.error[i] <= NOISE_SIGMAS * self.error_noise[i]:
            return "within batch noise"
        if self.momentum[i] >= 1.0:
            return "never: momentum 1 keeps the start"
        if self.drifting[i] and self.permanent_lag[i] > self.tolerance:
            return (
                f"never at this rate of drift: it keeps a lag of {self.permanent_lag[i]:.2g} batch standard deviations"
            )
        return ""


def latest(history: History, name: str) -> Array:
    """The last known value of a row for each layer, [L]; rows such as the noise are not measured at each record."""
    if not len(history.steps):
        return np.full(len(history.manifest.layers), np.nan)
    rows = history.row(name)
    value: Array = rows[-1].astype(np.float64)
    missing = np.flatnonzero(np.isnan(value))
    if len(missing):
        back = rows[-LOOK_BACK:, missing][::-1]
        known = ~np.isnan(back)
        value[missing] = np.where(known.any(0), back[known.argmax(0), np.arange(len(missing))], np.nan)
    return value


AT_PRESENT = ("distance_rms", "distance_p95", "error_p50", "error_p95", "error_max", "between_within")
"""Rows that a measurement on many batches has of the present weights. Windows are of past ones, and one that is longer
than the memory of the average recovers the average itself."""


def table(history: History, evidence: Evidence | None = None) -> LayerTable:
    """Read the table from a history, [L] each, and from the measurement on many batches where there is one."""
    layers = history.manifest.layers
    row = {
        name: latest(history, name)
        for name in (
            "state updates pool_updates momentum momentum_effective distance_rms distance_p95 error_p50 error_p95 "
            "error_max batch_mean_rms batch_variance_gm noise_mean noise_variance noise_updates between_within shift "
            "shift_noise shift_span lag_cosine channels_nonfinite channels_collapsed attribution "
            "validation_distance_rms replica_spread call_alternation"
        ).split()
    }
    if evidence is not None:
        for name in (n for n in AT_PRESENT if n in evidence.layers):
            row[name] = np.where(np.isnan(evidence.layers[name]), row[name], evidence.layers[name])
        row["pool_updates"] = np.full(len(layers), float(len(evidence.batch_sizes)))
    channels = np.array([layer.channels for layer in layers], np.float64)
    attribute = np.array([layer.momentum for layer in layers], np.float64)
    momentum = np.where(np.isnan(row["momentum"]), attribute, row["momentum"])
    effective = row["momentum_effective"]
    beta = np.where(np.isnan(effective) | ~differs(effective, momentum), momentum, effective)
    updates = np.nan_to_num(row["updates"])
    codes = np.nan_to_num(row["state"]).astype(int)

    calls = np.array([max(layer.calls, 1) for layer in layers], np.float64)
    per_step = calls
    if len(history.steps) > 1 and history.steps[-1] > history.steps[0]:
        counted = (history.row("updates")[-1] - history.row("updates")[0]) / (history.steps[-1] - history.steps[0])
        per_step = np.where(counted > 0, counted, calls)

    samples = history.manifest.batch_size or np.nan
    single_mean = np.fmin(row["noise_mean"], 1.0 / np.sqrt(samples))
    single_variance = np.fmin(row["noise_variance"], np.sqrt(VARIANCE_NOISE / samples))
    single_mean[np.isnan(row["noise_mean"])] = single_variance[np.isnan(row["noise_variance"])] = np.nan
    mean_noise = pooled_noise(single_mean, beta, row["pool_updates"])
    variance_noise = pooled_noise(single_variance, beta, row["pool_updates"])
    rate = drift.rate(row["shift"], row["shift_noise"], row["shift_span"], channels) / per_step
    return LayerTable(
        names=tuple(layer.name for layer in layers),
        channels=channels,
        state=tuple(STATES[c] if 0 <= c < len(STATES) else "unknown" for c in codes),
        momentum=momentum,
        beta=beta,
        effective=effective,
        updates=updates,
        updates_per_step=per_step,
        distance=row["distance_rms"],
        distance_p95=row["distance_p95"],
        distance_noise=np.hypot(mean_noise, 0.5 * variance_noise),
        error=row["error_p95"],
        error_median=row["error_p50"],
        error_max=row["error_max"],
        renewed=renewal(history, "error_p95", beta)[-1],
        renewed_max=renewal(history, "error_max", beta)[-1],
        error_noise=np.fmax(mean_noise, variance_noise),
        memory=start_memory(beta, updates),
        start_error=_start(history, row, beta, updates),
        noise_mean=row["noise_mean"],
        noise_variance=row["noise_variance"],
        rate=rate,
        shift=row["shift"],
        shift_noise=row["shift_noise"],
        permanent_lag=drift.permanent_lag(rate, beta),
        lag_cosine=row["lag_cosine"],
        nonfinite=np.nan_to_num(row["channels_nonfinite"]),
        collapsed=np.nan_to_num(row["channels_collapsed"]),
        between_within=row["between_within"],
        noise_updates=np.nan_to_num(row["noise_updates"]),
        attribution=row["attribution"],
        validation_distance=row["validation_distance_rms"],
        replica_spread=row["replica_spread"],
        alternation=row["call_alternation"],
        # A relative error of the variance counts half in the standard deviation.
        scatter=np.hypot(single_mean, 0.5 * single_variance),
        tolerance=history.manifest.tolerance,
    )


def _start(history: History, row: dict[str, Array], beta: Array, updates: Array) -> Array:
    """Error that the start alone still causes: by the statistics then and now, and by the error first measured."""
    if not len(history.steps):
        return np.full(len(beta), np.nan)
    m0 = history.row("moving_mean_rms")[0].astype(np.float64)
    s0 = history.row("moving_variance_gm")[0].astype(np.float64)
    by_statistics = start_error(row["batch_mean_rms"], row["batch_variance_gm"], m0, s0, beta, updates)
    # Channels on both sides of their start cancel in a layer's mean; the first error measured does not have that.
    errors, counts = history.row("error_p50"), history.row("updates")
    known = ~np.isnan(errors)
    first, every = known.argmax(0), np.arange(len(beta))
    with np.errstate(all="ignore"):
        by_first = errors[first, every] * beta ** np.clip(updates - counts[first, every], 0.0, None)
    return np.asarray(np.fmax(by_statistics, np.where(known.any(0), by_first, np.nan)))
