"""When the moving statistics arrive: steps to converge with an interval, at any records of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis.convergence import steps_to_converge
from tb_bnlens.analysis.effective import differs
from tb_bnlens.analysis.noise import pooled_noise
from tb_bnlens.analysis.renewal import renewal
from tb_bnlens.history import History
from tb_bnlens.metadata import State, replay_row

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Records = NDArray[np.int64]

NOISE_SIGMAS = 4.0
"""An error under this many standard deviations of batch noise is no lag: over the channels of a layer the largest
of some hundred normal values reaches 2.6 on average and 4 once in a hundred times."""
VARIANCE_NOISE = 8.0
"""The variance of n random samples scatters by sqrt((kurtosis - 1) / n) of itself; this is a kurtosis of 9, of channels
that are rarely active. Bursts that measure the noise lie far back where steps are cheap, and the noise of then over a
variance of now can be anything; it is capped at what samples drawn at random give."""
LOOK_BACK = 64
"""Records searched for the last value of a row that is not measured at each record."""
CONSTANT = tuple(state.position for state in (State.FROZEN, State.INFERENCE_MODE, State.NEVER_UPDATED))
SPARSE = 1.01
"""Records farther apart than this many memories ``1/(1-momentum)``, and rounding, do not say where the statistics are:
the pool behind them is older than the moving statistics."""

REPLAYS = (0.95, 0.97, 0.99, 0.997)
"""Momentum values, ascending, whose replays show how fast the batch statistics move: longer than the pool of some 20
updates that they are compared with."""
START_DISTANCE = 0.5
"""Distance over relative error of what is left of the start, which is mostly variance."""
START_LEFT = 0.02
"""A replay tells movement from the start when less than this share of the start is left in it: from 77 updates on."""
POOL = 20
"""Updates in the short pool."""
POOL_AGE = 8.0
"""Updates by which the short pool is behind the present. The replay's lag is measured from there."""
ERROR_OF_DISTANCE = 1.425
"""95th percentile of the relative error over the rms distance, for a lag: measured, in the median of the calibration.
A lag of the variance is twice as large in relative error as in distance, and a percentile exceeds an rms."""

# The constants of the interval were fitted to 52 trainings of 9 kinds of network (tests/calibration,
# docs/measurements.md), so that it holds at least 80% of their layers and is as narrow as can be.
LEAST_ERROR = 0.65
"""Low end: the error is this share of what is measured. Variances that grow while training towards the moving ones
take part of an error away."""
MOST_LAG, MOST_FADE = 2.0, 2.0
"""High end: the lag is this many times what is measured, and takes this many times as long to fade."""
MOST_UNSEEN = 0.2
"""High end: a lag of this share of the tolerance may come on top, as statistics that stand still now may move again."""
STILL = 0.9
"""A movement that is more than this share of what it was half of the updates ago does not fade."""
LOW_RATE = 1e-3
"""Learning rates up to this one let the statistics settle while they stay constant; above it, layers with a lag over
the tolerance did not arrive in most trainings that kept the rate (Adam at 0.01)."""
FALLING = 0.98
"""A learning rate below this share of what it was half of the updates ago is falling."""


@dataclass(frozen=True)
class Arrival:
    """Figures of each layer at some records, [R, L] each; NaN where not known.

    Counts are BatchNorm updates from the record on; inf is never.
    """

    momentum: Array
    """The attribute."""
    effective: Array
    beta: Array
    """The momentum that the statistics show where it was estimated and differs, else the attribute."""
    updates: Array
    single_mean: Array
    single_variance: Array
    """Noise of a single batch's mean and variance."""
    mean_noise: Array
    variance_noise: Array
    """What is left of it in the moving statistics and the pool that they are compared with."""
    error: Array
    """95th percentile over channels of the relative error."""
    lag: Array
    """Error that the movement of the batch statistics keeps up at its present pace; 0 where none is known."""
    steps: Array
    """Updates until 95% of a layer's channels are within tolerance."""
    steps_worst: Array
    """The same for the worst channel."""
    low: Array
    high: Array
    """80% interval of ``steps``; NaN where it is not reliable."""
    sparse: Mask
    """The records are too far apart for an estimate."""
    moving: Mask
    """The lag is over the tolerance, and it does not fade or the learning rate is high: it may never arrive."""

    @property
    def error_noise(self) -> Array:
        """Standard deviation of the error from batch noise alone."""
        return np.fmax(self.mean_noise, self.variance_noise)

    @property
    def reliable(self) -> Mask:
        """Whether ``low`` and ``high`` are known."""
        return np.asarray(~np.isnan(self.low) & ~np.isnan(self.high))


def measured(history: History, name: str, records: Records) -> Array:
    """A row at some records, [R, L]: its last value of at most ``LOOK_BACK`` records, NaN where there is none."""
    first = max(0, int(records.min()) - LOOK_BACK + 1) if len(records) else 0
    rows = history.row(name)[first:].astype(np.float64)
    if not len(rows):
        return np.full((len(records), len(history.manifest.layers)), np.nan)
    known = np.where(np.isnan(rows), -LOOK_BACK, np.arange(len(rows))[:, None])
    last = np.maximum.accumulate(known, 0)[records - first]
    old = (records - first)[:, None] - last >= LOOK_BACK
    return np.where(old, np.nan, np.take_along_axis(rows, np.maximum(last, 0), 0))


def arrival(
    history: History,
    records: Records | None = None,
    *,
    present: Mapping[str, Array] | None = None,
    ends: bool = True,
) -> Arrival:
    """Steps to converge of each layer at some records, or at all of them.

    The error left from the start shrinks by the momentum at every update. The movement of the batch statistics adds a
    standing lag, which is measured on a replay with a shorter memory and fades as weights settle. The estimate takes
    the lag as measured and lets it fade e-fold over the updates so far. The low end takes less of the error. The high
    end takes more lag, and counts as movement what may be left of the start or noise. It is never where the lag is over
    the tolerance and the learning rate is high and does not fall. Where such a lag shows no sign of fading, the
    estimate is never too.

    Args:
        history: the run.
        records: positions of the records, ascending; all where None.
        present: rows that stand in for those of the last of the records, [L] each; NaN leaves what was recorded.
        ends: work out ``low``, ``high`` and ``steps_worst`` too; they take three quarters of the time.

    Returns:
        Arrays [R, L].
    """
    records = np.arange(len(history.steps)) if records is None else records
    tolerance = history.manifest.tolerance

    def row(name: str) -> Array:
        rows = measured(history, name, records)
        if present and name in present and len(rows):
            rows[-1] = np.where(np.isnan(present[name]), rows[-1], present[name])
        return rows

    attribute = np.array([layer.momentum for layer in history.manifest.layers], np.float64)
    given, effective = row("momentum"), row("momentum_effective")
    momentum = np.where(np.isnan(given), attribute, given)
    samples = history.manifest.batch_size or np.nan
    noise_mean, noise_variance = row("noise_mean"), row("noise_variance")
    with np.errstate(all="ignore"):
        beta = np.where(np.isnan(effective) | ~differs(effective, momentum), momentum, effective)
        single_mean = np.where(np.isnan(noise_mean), np.nan, np.fmin(noise_mean, 1.0 / np.sqrt(samples)))
        capped = np.fmin(noise_variance, np.sqrt(VARIANCE_NOISE / samples))
        single_variance = np.where(np.isnan(noise_variance), np.nan, capped)
        pool = row("pool_updates")
        mean_noise, variance_noise = pooled_noise(single_mean, beta, pool), pooled_noise(single_variance, beta, pool)
        error, worst = row("error_p95"), row("error_max")
        updates = np.nan_to_num(row("updates"))
        scatter = np.hypot(single_mean, 0.5 * single_variance)
        lag, most, fades = _lag(history, records, beta, error, scatter)

        estimate = steps_to_converge(error, beta, tolerance, renewed=lag, age=updates)
        low, high, steps_worst = (np.full(error.shape, np.nan) for _ in range(3))
        if ends:
            low = steps_to_converge(LEAST_ERROR * error, beta, tolerance, renewed=lag, age=updates)
            most = MOST_LAG * most + MOST_UNSEEN * tolerance
            high = steps_to_converge(error, beta, tolerance, renewed=most, age=MOST_FADE * updates)
            share = np.where(worst > error, worst / error, 1.0)
            steps_worst = steps_to_converge(worst, beta, tolerance, renewed=lag * share, age=updates)
        moving = (lag > tolerance) & (error > tolerance)
        estimate = np.where(moving & ~fades, np.inf, estimate)
        moving &= ~fades | _hot(history, records)[:, None]
        high = np.where(moving, np.inf, high)

        noise = np.fmax(np.nan_to_num(mean_noise), np.nan_to_num(variance_noise))
        outside = error > tolerance
        before = history.row("updates")[np.maximum(records - 1, 0)].astype(np.float64)
        sparse = outside & ((updates - before) * (1.0 - beta) > SPARSE)
        unknown = (outside & (error <= NOISE_SIGMAS * noise)) | sparse
        constant = np.isin(np.nan_to_num(row("state")), CONSTANT) & outside
        never = constant | (row("channels_nonfinite") > 0)
        # Before the replay has forgotten its start nothing is known of the movement.
        early = outside & (REPLAYS[0] ** updates > START_LEFT)

    def settle(steps: Array, unless: Mask) -> Array:
        return np.where(never, np.inf, np.where(unless, np.nan, steps))

    return Arrival(
        momentum=momentum,
        effective=effective,
        beta=beta,
        updates=updates,
        single_mean=single_mean,
        single_variance=single_variance,
        mean_noise=mean_noise,
        variance_noise=variance_noise,
        error=error,
        lag=lag,
        steps=settle(estimate, unknown),
        steps_worst=settle(np.fmax(steps_worst, estimate), unknown),
        low=settle(np.minimum(low, estimate), unknown | early),
        high=settle(np.maximum(high, estimate), unknown | early),
        sparse=sparse & ~never,
        moving=moving & ~unknown & ~never,
    )


def _lag(history: History, records: Records, beta: Array, error: Array, scatter: Array) -> tuple[Array, Array, Mask]:
    """The lag that the movement keeps up, [R, L], what it is at most, and whether it fades.

    A steady movement of r an update leaves a moving average with a memory of n updates ``r n`` behind, so that the
    lag of a shorter replay tells that of the layer: of the longest that has forgotten its start. Where there is none,
    the part of the error that was renewed over the last third of the record stands in. At most, what the replay
    may hold of its start and of batch noise is movement too.
    """
    lag = np.nan_to_num(renewal(history, "error_p95", beta, records))
    most, fades = lag, np.ones(lag.shape, np.bool_)
    if not len(history.steps):
        return lag, most, fades
    updates = history.row("updates").astype(np.float64)
    errors = history.row("error_p95").astype(np.float64)
    usual = np.array([layer.momentum for layer in history.manifest.layers], np.float64)
    first = (~np.isnan(errors)).argmax(0), np.arange(errors.shape[1])
    # All layers that update do so in step, so one of them finds the record half of the updates ago.
    # Where a record has no count, or a smaller one than before, the counts would not be in order.
    count = np.maximum.accumulate(np.nanmax(np.nan_to_num(updates), 1, initial=0.0))
    half = np.searchsorted(count, 0.5 * count[records])
    at = np.unique(np.concatenate([records, half]))
    updates, errors, begun = updates[at], errors[at], updates[first]
    now, then = np.searchsorted(at, records), np.searchsorted(at, half)
    for momentum in REPLAYS:
        left = momentum**updates
        # What the replay holds of the start is no movement. It is at most what the first error, and the error now,
        # which the layer's own momentum shrinks more slowly, leave of it. Nor is batch noise.
        start = np.fmin(history.row("error_p95")[first] * left / momentum**begun, errors * left / usual**updates)
        start = np.square(ERROR_OF_DISTANCE * START_DISTANCE * start)
        short = np.square(ERROR_OF_DISTANCE * history.row(replay_row(momentum))[at].astype(np.float64))
        noise = np.square(ERROR_OF_DISTANCE * _noise_of_replay(momentum) * np.nan_to_num(scatter))
        known = (left <= START_LEFT) & ~np.isnan(short)
        usable = (beta > momentum - 1e-6) & known[now]
        longer = 1.0 / (1.0 - beta) / (1.0 / (1.0 - momentum) - POOL_AGE)
        moved, moved_then = (np.sqrt(np.maximum(short[i] - start[i] - noise, 0.0)) for i in (now, then))
        lag = np.where(usable, np.minimum(longer * moved, error), lag)
        most = np.where(usable, np.minimum(longer * np.sqrt(short[now]), error), most)
        fades = np.where(usable & known[then], moved <= STILL * moved_then, fades)
    return lag, most, fades


def _noise_of_replay(momentum: float) -> float:
    """Standard deviation of a moving average minus the mean of the newest ``POOL`` values, of independent ones."""
    weights = (1.0 - momentum) * momentum ** np.arange(math.ceil(10.0 / (1.0 - momentum)))
    weights[:POOL] -= 1.0 / POOL
    return float(np.sqrt(np.sum(np.square(weights))))


def _hot(history: History, records: Records) -> Mask:
    """Whether the learning rate at each record is high and not falling, [R]; False where it is not known."""
    rates = history.loss("learning_rate").astype(np.float64)
    known = ~np.isnan(rates)
    if not known.any():
        return np.zeros(len(records), np.bool_)
    steps, rates = history.loss_steps[known], rates[known]
    first = history.steps[0] if len(history.steps) else 0

    def at(step: NDArray[np.floating]) -> Array:
        return rates[np.clip(np.searchsorted(steps, step, "right") - 1, 0, len(rates) - 1)]

    now = history.steps[records].astype(np.float64)
    return np.asarray((at(now) > LOW_RATE * (1 + 1e-6)) & (at(now) >= FALLING * at(first + 0.5 * (now - first))))
