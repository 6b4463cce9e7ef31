"""Write a long run with the project's own writer, from a simulation that knows the truth.

``python -m tests.benchmarks.generate LOGDIR --steps 1000000 --layers 200``

Between two records the batch statistics move in a straight line, so the moving statistics at the next record have
a closed form, and a million steps cost as much as their 1,300 records. The run warms up, drifts at a rate that drops
with the learning rate, changes its momentum, and meets a stretch of bad batches that lies between two records.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens import metadata
from tb_bnlens.analysis.distance import convergence_error, distance, mean_error, variance_error
from tb_bnlens.history import Layer

Array = NDArray[np.float64]

# Channels that are simulated of each layer; the manifest and the channel snapshots have the real number.
SIMULATED = 16
SHORT, LONG = 20, 100
CHANNELS = (16, 24, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
EPSILON = 1e-3
BAD_BATCHES = 40
BAD_SIZE = 30.0
LOSS_PER_DISTANCE = 150.0


@dataclass(frozen=True)
class Truth:
    """What happened in a generated run."""

    steps: int
    layers: int
    records: tuple[int, ...]
    probes: tuple[int, ...]
    learning_rate_drop: int
    momentum_change: int
    momentums: tuple[float, float]
    """Momentum before and after the change."""
    bad_batches: tuple[int, int]
    """First and last step of the stretch of bad batches; no record lies in it."""
    bad_layers: tuple[int, ...]
    drift: tuple[float, float]
    """Drift a step before and after the drop of the learning rate, in batch standard deviations."""
    noise: float
    """Standard deviation of one batch's mean, in channel standard deviations."""


def scheduled(steps: int, layers: int) -> tuple[list[int], list[int]]:
    """Steps of records and of probes as the recorder's own schedule puts them when time is no matter."""
    from tb_bnlens.capture.schedule import Schedule

    now = 0
    schedule = Schedule(math.inf, clock=lambda: float(now))
    schedule.fit_records(4 * layers * len(metadata.LAYER_ROWS))
    schedule.start()
    records, probes = [], []
    for now in range(1, steps + 1):
        if schedule.probe_due(now):
            probes.append(now)
        if schedule.snapshot_due(now) and schedule.record_due(now):
            records.append(now)
    return sorted({*records, steps}), sorted({*probes, steps})


def plan(steps: int, layers: int) -> Truth:
    """Lay out the events of a run of this size."""
    records, probes = scheduled(steps, layers)
    written = sorted({*records, *probes})
    gaps = np.diff(written)
    middle = int(np.searchsorted(written, 0.35 * steps))
    i = middle + int(np.argmax(gaps[middle : middle + 50]))
    length = int(min(BAD_BATCHES, max(1, gaps[i] - 2)))
    first = written[i] + 1
    return Truth(
        steps=steps,
        layers=layers,
        records=tuple(records),
        probes=tuple(probes),
        learning_rate_drop=int(0.5 * steps),
        momentum_change=int(0.7 * steps),
        momentums=(0.999, 0.99),
        bad_batches=(first, first + length - 1),
        bad_layers=tuple(range(0, layers, 7)),
        drift=(2e-3, 1e-4),
        noise=0.05,
    )


class Simulation:
    """Batch and moving statistics of all layers at the records, [layers, SIMULATED]."""

    def __init__(self, truth: Truth, seed: int = 0) -> None:
        self.truth = truth
        self.rng = np.random.default_rng(seed)
        shape = (truth.layers, SIMULATED)
        self.start_mean = self.rng.normal(0.3, 0.2, shape)
        self.variance_at = (self.rng.uniform(0.2, 2.0, shape), self.rng.uniform(0.05, 0.8, shape))
        self.direction = self.rng.choice([-1.0, 1.0], shape)
        # Momentum by column: the replayed values, and the layer's own last. Moving mean 0 and variance 1 at the start.
        self.mean_lag = np.broadcast_to(-self.start_mean, (len(metadata.REPLAY_MOMENTUMS) + 1, *shape)).copy()
        self.variance_lag = np.broadcast_to(1.0 - self.variance_at[0], self.mean_lag.shape).copy()
        self.noise_part = np.zeros_like(self.mean_lag)
        self.step = 0
        self.start = (np.zeros(shape), np.ones(shape))

    def momentum(self, step: int) -> float:
        """The layers' own momentum at a step."""
        return self.truth.momentums[step >= self.truth.momentum_change]

    def variance(self, step: float) -> Array:
        """True batch variance: it settles within the first hundredth of the run."""
        settled = math.exp(-step / max(1.0, 0.01 * self.truth.steps))
        first, last = self.variance_at
        return last + (first - last) * settled

    def mean(self, step: float) -> Array:
        """True batch mean: it drifts at a rate that drops with the learning rate."""
        before = min(step, self.truth.learning_rate_drop)
        drifted = self.truth.drift[0] * before + self.truth.drift[1] * (step - before)
        # Turns round every so often, so that a million steps do not drift out of float32.
        period = 0.2 * self.truth.steps
        folded = abs((drifted / self.truth.drift[0] + period / 2) % (2 * period) - period) - period / 2
        return self.start_mean + self.direction * self.truth.drift[0] * folded * np.sqrt(self.variance_at[1])

    def advance(self, step: int) -> None:
        """Move on to a later step."""
        k = step - self.step
        betas = np.array([*metadata.REPLAY_MOMENTUMS, self.momentum(step)])[:, None, None]
        keep = betas**k
        slope = (self.mean(step) - self.mean(self.step)) / k
        variance_slope = (self.variance(step) - self.variance(self.step)) / k
        behind = betas / (1.0 - betas)
        self.mean_lag = -slope * behind + keep * (self.mean_lag + slope * behind)
        self.variance_lag = -variance_slope * behind + keep * (self.variance_lag + variance_slope * behind)
        spread = self.truth.noise * np.sqrt(self.variance(step))
        fresh = np.sqrt((1.0 - betas) / (1.0 + betas) * (1.0 - keep**2))
        self.noise_part = keep * self.noise_part + fresh * spread * self.rng.standard_normal(self.mean_lag.shape)
        first, last = self.truth.bad_batches
        if self.step < first <= last < step:
            pushed = (
                BAD_SIZE * np.sqrt(self.variance(last)) * (1.0 - betas ** (last - first + 1)) * betas ** (step - last)
            )
            bad = list(self.truth.bad_layers)
            self.mean_lag[:, bad] += pushed[:, bad]
        self.step = step

    def moving(self, column: int = -1) -> tuple[Array, Array]:
        """Moving mean and variance at one of the momentum values, by default the layers' own."""
        mean = self.mean(self.step) + self.mean_lag[column] + self.noise_part[column]
        return mean, np.maximum(self.variance(self.step) + self.variance_lag[column], 0.0)

    def pool(self, length: int) -> tuple[Array, Array, int]:
        """Batch statistics pooled over the last steps."""
        n = min(self.step, length)
        middle = self.step - (n - 1) / 2
        spread = self.truth.noise / math.sqrt(n)
        mean = self.mean(middle) + spread * np.sqrt(self.variance(middle)) * self.rng.standard_normal(
            self.start_mean.shape
        )
        return mean, self.variance(middle), n

    def table(self, since: int) -> NDArray[np.float32]:
        """The layers record at this step; ``since`` is the step of the one before."""
        mu, v, n = self.pool(SHORT)
        mu_long, _, n_long = self.pool(LONG)
        m, s = self.moving()
        w = distance(mu, v, m, s, EPSILON)
        mean_off, variance_off = mean_error(mu, v, m, EPSILON), variance_error(v, s, EPSILON)
        error = convergence_error(mu, v, m, s, EPSILON)
        first, last = self.truth.bad_batches
        spike = np.zeros(self.truth.layers)
        if since < first <= last < self.step:
            spike[list(self.truth.bad_layers)] = BAD_SIZE
        rms = np.sqrt(np.mean(w**2, 1))
        rows: dict[str, Any] = {
            "state": metadata.STATES.index("updating"),
            "updates": self.step,
            "pool_updates": n,
            "momentum": self.momentum(self.step),
            "momentum_effective": np.nan,
            **_quantiles("distance", w, rms=rms, signed=False),
            **_quantiles("mean_error", mean_off, signed=True),
            **_quantiles("variance_error", variance_off, signed=True),
            **_quantiles("error", error, signed=False),
            "batch_mean_rms": np.sqrt(np.mean(mu**2, 1)),
            "moving_mean_rms": np.sqrt(np.mean(m**2, 1)),
            "batch_variance_gm": np.exp(np.mean(np.log(v + EPSILON), 1)),
            "moving_variance_gm": np.exp(np.mean(np.log(s + EPSILON), 1)),
            "noise_mean": self.truth.noise,
            "noise_variance": 1.5 * self.truth.noise,
            "noise_updates": min(self.step, 50),
            "between_within": 1.0,
            "shift": np.sqrt(np.mean((mu - mu_long) ** 2 / (v + EPSILON), 1)),
            "shift_noise": self.truth.noise * math.sqrt(1 / n + 1 / n_long),
            "shift_span": 0.5 * (n_long - n) or np.nan,
            "lag_cosine": 1.0,
            "channels_nonfinite": 0,
            "window_nonfinite": 0,
            "channels_collapsed": 0,
            "worst_channel": np.argmax(w, 1),
            "since_min": 0.9 * rms,
            "since_mean": rms,
            "since_max": np.maximum(1.1 * rms, spike),
            "since_max_step": np.where(spike > 1.1 * rms, last, self.step),
            "start_distance": np.sqrt(np.mean((m - self.start[0]) ** 2 + (s - self.start[1]) ** 2, 1)),
        }
        for column, momentum in enumerate(metadata.REPLAY_MOMENTUMS):
            replayed = distance(mu, v, *self.moving(column), EPSILON)
            rows[metadata.replay_row(momentum)] = np.sqrt(np.mean(replayed**2, 1))
        table = np.full((self.truth.layers, len(metadata.LAYER_ROWS)), np.nan, np.float32)
        for name, value in rows.items():
            table[:, metadata.LAYER_INDEX[name]] = value
        return table

    def losses(self) -> dict[str, float]:
        """The paired losses at this step."""
        batch = 0.5 + 4.0 * math.exp(-self.step / (0.05 * self.truth.steps))
        mu, v = self.mean(self.step), self.variance(self.step)

        def at(m: Array, s: Array) -> float:
            worst = np.sqrt(np.mean(distance(mu, v, m, s, EPSILON) ** 2, 1)).max()
            return float(batch * (1.0 + LOSS_PER_DISTANCE * worst**2))

        losses = {
            "training": batch + 0.1,
            "batch": batch,
            "inference": at(*self.moving()),
            "recalibrated": at(*self.pool(SHORT)[:2]),
            "recalibrated_long": at(*self.pool(LONG)[:2]),
            "fit_loss": batch + 0.1,
            "learning_rate": 1e-3 if self.step < self.truth.learning_rate_drop else 1e-4,
            "batch_size": 32,
            "short_updates": min(self.step, SHORT),
            "long_updates": min(self.step, LONG),
            "overhead": 0.008,
            "step_seconds": 0.1,
        }
        for column, momentum in enumerate(metadata.REPLAY_MOMENTUMS):
            losses[metadata.replay_row(momentum)] = at(*self.moving(column))
        m, s = self.moving()
        for i in range(metadata.FORECAST_POINTS):
            ahead = 10.0 ** (i / 1.5 + 1)
            kept = self.momentum(self.step) ** ahead
            losses[f"forecast_step_{i}"] = ahead
            losses[f"forecast_{i}"] = at(mu + kept * (m - mu), v + kept * (s - v))
        return losses


def layers(truth: Truth, step: int) -> list[Layer]:
    """The layers as they are at a step."""
    momentum = truth.momentums[step >= truth.momentum_change]
    return [
        Layer(
            index=i,
            name=f"stage_{i // 20}/block_{i // 4}/bn_{i}",
            channels=channels(i),
            momentum=momentum,
            epsilon=EPSILON,
            order=i,
            access=f"model.layers[{i}]",
        )
        for i in range(truth.layers)
    ]


def channels(layer: int) -> int:
    """Channels of a layer, 16 to 2,048."""
    return CHANNELS[(5 * layer) % len(CHANNELS)]


def write(log_dir: Path | str, truth: Truth, *, seed: int = 0) -> int:
    """Write the run into ``log_dir/bn_lens``; returns the bytes on disk."""
    from tb_bnlens.capture.log import RunLog

    simulation = Simulation(truth, seed)
    log = RunLog(str(log_dir), 0.1, None)
    log.open()
    log.planned_steps, log.batch_size = truth.steps, 32
    log.fit_channels(sum(map(channels, range(truth.layers))))
    log.event(0, metadata.EventKind.START, "recording begins")
    due = [
        (truth.learning_rate_drop, metadata.EventKind.RECOMPILE, "learning rate 0.001 -> 0.0001"),
        (truth.momentum_change, metadata.EventKind.MOMENTUM, f"momentum {truth.momentums[0]} -> {truth.momentums[1]}"),
    ]
    records = set(truth.records)
    since = 0
    for step in sorted(records.union(truth.probes)):
        while due and due[0][0] <= step:
            log.event(*due.pop(0))
        if log.manifest_due:
            log.write_manifest(layers(truth, step), 1, step)
        simulation.advance(step)
        if step in records:
            log.write_layers(simulation.table(since), step)
            since = step
            if log.channels_due(step) or step == truth.steps:
                log.write_channels(list(_snapshots(simulation)), step)
        if step in truth.probes:
            log.write_losses({"train": simulation.losses()}, step)
    log.close()
    return sum(path.stat().st_size for path in (Path(log_dir) / metadata.RUN_SUFFIX).iterdir())


def _snapshots(simulation: Simulation) -> Iterator[Array]:
    mu, v, _ = simulation.pool(SHORT)
    m, s = simulation.moving()
    for layer in range(simulation.truth.layers):
        repeats = -(-channels(layer) // SIMULATED)
        whole = np.tile(np.stack([mu[layer], v[layer], m[layer], s[layer]]), repeats)[:, : channels(layer)]
        yield whole * (1.0 + 0.01 * simulation.rng.standard_normal(whole.shape))


def _quantiles(name: str, values: Array, *, signed: bool, rms: Array | None = None) -> dict[str, Array]:
    size = np.abs(values)
    worst = np.argmax(size, 1)[:, None]
    rows = {
        f"{name}_p50": np.median(values, 1),
        f"{name}_p95": np.percentile(size, 95, 1),
        f"{name}_max": np.take_along_axis(values if signed else size, worst, 1)[:, 0],
    }
    return rows if rms is None else {f"{name}_rms": rms, **rows}


def main() -> None:
    """Write one run, or many under names of their own."""
    parser = argparse.ArgumentParser(description="Write long runs of the lens with a known truth.")
    parser.add_argument("logdir", type=Path)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--layers", type=int, default=200)
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    truth = plan(options.steps, options.layers)
    for run in range(options.runs):
        name = f"run_{run:03d}" if options.runs > 1 else f"steps_{options.steps}_layers_{options.layers}"
        size = write(options.logdir / name, truth, seed=run)
        print(f"{name}: {len(truth.records)} records, {len(truth.probes)} probes, {size / 1e6:.1f} MB", flush=True)
    print(f"bad batches at steps {truth.bad_batches[0]} to {truth.bad_batches[1]}")


if __name__ == "__main__":
    main()
