"""One record: the packed [L, K] table of ``metadata.LAYER_ROWS`` from the running state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tb_bnlens.analysis.distance import LIVE_SHARE, convergence_error, mean_error, variance_error
from tb_bnlens.metadata import LAYER_INDEX, LAYER_ROWS, REPLAY_ROWS
from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.recovery import WindowRecovery
from tb_bnlens.moments.segments import Segments
from tb_bnlens.moments.windows import Windows

Array = NDArray[np.floating[Any]]


@dataclass
class ProbeState:
    """What the probe has measured of the layers; NaN until then."""

    mean: Array
    """Batch statistics of the probed batches, pooled, [C_total]."""
    variance: Array
    batches: int = 0
    momentum_effective: Array = field(default_factory=lambda: np.empty(0))
    attribution: Array = field(default_factory=lambda: np.empty(0))
    call_alternation: Array = field(default_factory=lambda: np.empty(0))
    validation_distance: Array = field(default_factory=lambda: np.empty(0))
    between_within: Array = field(default_factory=lambda: np.empty(0))

    @classmethod
    def empty(cls, segments: Segments) -> ProbeState:
        """Nothing measured yet."""
        nothing = np.full(int(segments.sizes.sum()), np.nan, np.float32)
        layers = np.full(len(segments), np.nan)
        return cls(nothing, nothing.copy(), 0, *(layers.copy() for _ in range(5)))

    @property
    def moments(self) -> Moments:
        """Batch statistics of the probed batches."""
        return Moments(self.mean, self.variance)

    def pool(self, seen: Moments) -> None:
        """Add the statistics of one more probed batch; old batches fade with a memory of some eight."""
        self.batches += 1
        rate = max(1 / self.batches, 1 / 8)
        for held, new in ((self.mean, seen.mean), (self.variance, seen.variance)):
            held += np.where(np.isnan(held), 0, rate * (new - held))
            np.copyto(held, new, where=np.isnan(held))


def batch_statistics(windows: Windows, probe: ProbeState) -> Moments:
    """Mean and variance that training mode normalizes with, [C_total].

    The windows know them for layers that update; for frozen or poisoned channels the probe does.
    """
    pooled = windows.short.merged()
    return probe.moments if pooled is None else pooled.moments.or_else(probe.moments)


def layer_table(
    windows: Windows,
    probe: ProbeState,
    recovery: WindowRecovery,
    segments: Segments,
    momentums: Array,
    states: Array,
) -> NDArray[np.float32]:
    """The record of all layers now, float32 [L, K]; see ``metadata.LAYER_ROWS`` for every formula."""
    table = np.full((len(segments), len(LAYER_ROWS)), np.nan)

    def put(row: str, values: ArrayLike) -> None:
        table[:, LAYER_INDEX[row]] = values

    eps = recovery.epsilon
    snapshot = windows.last
    seen, moving = batch_statistics(windows, probe), recovery.moving(snapshot)
    m, s = moving.mean, moving.variance
    mu, v = seen.mean, seen.variance
    pooled = windows.short.merged()
    from_windows = np.zeros(len(segments)) if pooled is None else segments.count(~np.isnan(pooled.moments.mean))

    put("state", states)
    put("updates", windows.updates)
    put("pool_updates", np.where(from_windows > 0, 0 if pooled is None else pooled.updates, probe.batches))
    put("momentum", momentums)
    put("momentum_effective", probe.momentum_effective)

    with np.errstate(all="ignore"):
        scale = np.sqrt(v + eps)
        live = v > LIVE_SHARE * eps
        w = seen.distance(moving, eps)
        put("distance_rms", segments.rms(w))
        errors = np.stack([mean_error(mu, v, m, eps), variance_error(v, s, eps)])
        errors = np.where(np.isfinite(errors) & live, errors, np.nan)
        sizes = np.abs(errors)
        largest = segments.at(errors, segments.argmax(sizes))
        # NumPy takes as long for one of them as for all, where layers have few channels.
        ranked = np.stack([w, convergence_error(mu, v, m, s, eps), *errors, *sizes])
        middle, high, top = segments.quantiles(ranked, (0.5, 0.95, 1.0))
        for i, name in enumerate(("distance", "error")):
            for suffix, values in (("p50", middle), ("p95", high), ("max", top)):
                put(f"{name}_{suffix}", values[i])
        for i, name in enumerate(("mean_error", "variance_error")):
            # The signed median, and the size of the rest.
            for suffix, value in (("p50", middle[2 + i]), ("p95", high[4 + i]), ("max", largest[i])):
                put(f"{name}_{suffix}", value)
        put("batch_mean_rms", segments.rms(mu))
        put("moving_mean_rms", segments.rms(np.where(np.isfinite(m), m, np.nan)))
        put("batch_variance_gm", np.exp(segments.mean(np.log(v + eps))))
        put("moving_variance_gm", np.exp(segments.mean(np.log(np.where(s + eps > 0, s + eps, np.nan)))))

        deviations = windows.noise()
        noise = np.full(len(segments), np.nan)
        if deviations is not None:
            noise = segments.rms(np.where(live, deviations.mean / scale, np.nan))
            put("noise_mean", noise)
            (relative,) = segments.quantiles(np.where(live, deviations.variance / np.maximum(v, eps), np.nan), (0.5,))
            put("noise_variance", relative)
        put("noise_updates", windows.noise_updates)
        put("between_within", probe.between_within)

        old = windows.long.oldest()
        if pooled is not None and old is not None:
            put("shift", segments.rms(np.where(live, (pooled.moments.mean - old.moments.mean) / scale, np.nan)))
            put("shift_noise", noise * np.sqrt(1 / pooled.batches + 1 / old.batches))
            put("shift_span", pooled.step - old.step)
        put("lag_cosine", windows.lag_cosine(scale))

        bad = ~np.isfinite(m) | ~np.isfinite(snapshot.spread) | (snapshot.spread < 0)
        put("channels_nonfinite", segments.count(bad))
        put("window_nonfinite", windows.window_nonfinite)
        put("channels_collapsed", segments.count(v <= eps))
        put("worst_channel", segments.argmax(np.where(bad, np.inf, w)))
        if windows.since:
            steps = np.asarray([step for step, _ in windows.since])
            apart = np.stack([value for _, value in windows.since])
            known = ~np.all(np.isnan(apart), axis=0)
            filled = np.where(np.isnan(apart), -np.inf, apart)
            put("since_min", np.where(known, np.min(np.where(np.isnan(apart), np.inf, apart), axis=0), np.nan))
            put("since_max", np.where(known, np.max(filled, axis=0), np.nan))
            put("since_max_step", np.where(known, steps[np.argmax(filled, axis=0)], np.nan))
            put("since_mean", np.where(known, np.nansum(apart, 0) / np.sum(~np.isnan(apart), 0), np.nan))
        if windows.epoch_end is not None:
            put("epoch_end_distance", windows.epoch_end)
        put("start_distance", windows.start_distance(scale))
        put("validation_distance_rms", probe.validation_distance)
        put("call_alternation", probe.call_alternation)
        put("attribution", probe.attribution)
        if snapshot.replica_mean is not None:
            put("replica_spread", segments.rms(np.std(snapshot.replica_mean, axis=0) / scale))
        which, replayed = windows.replays()
        for i, values in zip(which, segments.rms(seen.distance(replayed, eps)), strict=True):
            put(REPLAY_ROWS[i], values)
    return table.astype(np.float32)
