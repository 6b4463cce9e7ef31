"""A simulator of runs: batch statistics with known mean, variance, noise and drift -> History, as ground truth.

Every row is computed per channel from the definitions in metadata.py, by other code than the recorder's. The losses
are a surrogate: the batch-mode loss times ``1 + gain * W^2`` of the statistics that inference would use against
the true ones, which is about what three measured networks did (0.1 -> 2.5x at gain 150).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.analysis.convergence import steps_to_converge
from tb_bnlens.analysis.distance import convergence_error, distance, mean_error, variance_error
from tb_bnlens.history import Event, History, Layer, Manifest
from tb_bnlens.metadata import (
    FORECAST_POINTS,
    LAYER_INDEX,
    LAYER_ROWS,
    LOSS_INDEX,
    LOSS_ROWS,
    PROBES,
    REPLAY_MOMENTUMS,
    STATES,
    replay_row,
)

Array = NDArray[Any]
SHORT, LONG = 20, 100


@dataclass
class SimLayer:
    name: str = "bn"
    channels: int = 16
    momentum: float = 0.99
    true_mean: float = 0.3
    true_variance: float = 0.5
    samples: float = 3200.0
    """Effective samples a channel in one batch: sd of a batch mean is sqrt(v/samples)."""
    drift: float = 0.0
    """Drift of the mean a step, in batch standard deviations."""
    state: str = "updating"
    start: tuple[float, float] = (0.0, 1.0)
    graph_momentum: float | None = None
    """Momentum the traced step really uses."""
    poisoned_at: int | None = None
    between: float = 0.0
    """Batches take turns between two domains whose means lie this far to both sides, in batch standard deviations."""
    block: int = 1
    """Batches of one domain in a row."""
    epsilon: float = 1e-3
    collapsed: int = 0


@dataclass
class Sim:
    layers: list[SimLayer]
    steps: int = 400
    planned: int | None = None
    gain: float = 150.0
    batch_loss: float | Callable[[int], float] = 1.0
    loss_noise: float = 0.05
    dropout: float = 0.0
    noise_penalty: float = 0.0
    """Loss that any fixed statistics cost over the batch's own."""
    update_effect: float = 0.0
    probe: bool = True
    probe_every: int = 20
    seed: int = 0
    start_loss: float = 0.0
    """Extra batch loss at the start, gone after some 20 steps."""
    tolerance: float = 0.1
    validation: tuple[float, float] | None = None
    """(batch, inference) factors on validation data over the training batch loss."""
    ignore: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    not_evaluated: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, float] = field(default_factory=dict)
    """Layer row -> value written over every record."""
    loss_overrides: Mapping[str, float] = field(default_factory=dict)


class _Course:
    """All layers of a run in time. Their channels lie side by side: arrays are [times, C], and [times, L] by layer.

    Args:
        sim: the run.
        at: the steps that are recorded, ascending.
        probed: which steps draw a loss.
    """

    def __init__(self, sim: Sim, at: Collection[int], probed: Collection[int] = ()) -> None:
        specs = self.specs = sim.layers
        rng = np.random.default_rng(sim.seed)
        sizes = [spec.channels for spec in specs]
        stops = np.cumsum([0, *sizes])
        self.parts = [slice(*ends) for ends in pairwise(stops)]
        self.live = [slice(p.start + spec.collapsed, p.stop) for spec, p in zip(specs, self.parts, strict=True)]
        self.mean, self.direction = np.empty((2, stops[-1]))
        for spec, part in zip(specs, self.parts, strict=True):
            self.mean[part] = spec.true_mean * (1.0 if spec.channels == 1 else rng.choice([-1.0, 1.0], spec.channels))
            self.direction[part] = rng.choice([-1.0, 1.0], spec.channels)

        def each(value: Callable[[SimLayer], float]) -> Array:
            return np.repeat([float(value(spec)) for spec in specs], sizes)

        self.epsilon = each(lambda spec: spec.epsilon)
        self.variance = each(lambda spec: spec.true_variance)
        for part, live in zip(self.parts, self.live, strict=True):
            self.variance[part.start : live.start] = self.epsilon[part.start : live.start] / 2
        self.sd = np.sqrt(self.variance)
        self.drift = self.direction * each(lambda spec: spec.drift)
        self.between = each(lambda spec: spec.between)
        self.block = each(lambda spec: spec.block)
        self.samples = each(lambda spec: spec.samples)
        # A layer that is not updated keeps its statistics, as at a momentum of 1.
        self.updating = each(lambda spec: spec.state not in ("frozen", "inference_mode", "never_updated")) > 0
        self.beta = np.where(
            self.updating, each(lambda s: s.momentum if s.graph_momentum is None else s.graph_momentum), 1.0
        )
        self.start = each(lambda spec: spec.start[0]), each(lambda spec: spec.start[1])
        normal = np.zeros((sim.steps + 1, 2, stops[-1]))
        self.drawn: dict[int, float] = {}
        """Step -> what its loss draws."""
        for t in range(1, sim.steps + 1):
            drawn = rng.standard_normal(2 * stops[-1])
            for part in self.parts:
                normal[t, :, part] = drawn[2 * part.start : 2 * part.stop].reshape(2, -1)
            if t in probed:
                self.drawn[t] = rng.standard_normal()
        steps = np.arange(sim.steps + 1)
        error, spread = normal[:, 0] / np.sqrt(self.samples), np.sqrt(2.0 / self.samples) * normal[:, 1]
        self.means = self.true(steps) + self.sd * (self.side(steps) * self.between * self.direction + error)
        self.variances = np.clip(self.variance * (1.0 + spread), 0.0, None)
        self.averages = self._averages(frozenset(at))

    def _averages(self, at: Collection[int]) -> dict[int, Array]:
        """Step -> moving mean and variance at each momentum, the layer's own last, [momentums, 2, C]."""
        replays = np.where(self.updating, np.array(REPLAY_MOMENTUMS)[:, None], 1.0)
        betas = np.vstack([replays, self.beta])[:, None]
        new = 1 - betas
        now = np.empty((len(betas), 2, len(self.mean)))
        now[:, 0], now[:, 1] = self.start
        poisoned = [
            (spec.poisoned_at, part.start)
            for spec, part in zip(self.specs, self.parts, strict=True)
            if spec.poisoned_at is not None and self.updating[part.start]
        ]
        kept = {}
        for t in range(1, len(self.means)):
            now = betas * now + new * np.stack([self.means[t], self.variances[t]])
            for since, channel in poisoned:
                if t >= since:
                    now[-1, 0, channel] = np.nan
            if t in at:
                kept[t] = now
        return kept

    def moving(self, at: Array, momentum: int = -1) -> tuple[Array, Array]:
        """Moving mean and variance at these steps, at the layer's own momentum or at one of REPLAY_MOMENTUMS."""
        kept = np.stack([self.averages[t][momentum] for t in at.tolist()])
        return kept[:, 0], kept[:, 1]

    def true(self, at: Array) -> Array:
        """Mean of the data at these steps."""
        return np.asarray(self.mean + self.drift * at[..., None] * self.sd)

    def side(self, at: Array) -> Array:
        """The domain that these steps are of, 1 or -1."""
        return np.where((at[..., None] // self.block) % 2, 1.0, -1.0)

    def pool(self, at: Array, length: int) -> tuple[Array, Array, Array]:
        """Mean statistics of the last batches at these steps, and how many they are, [times]."""
        first = np.maximum(1, at - length + 1)
        windows = [slice(*ends) for ends in zip(first, at + 1, strict=True)]
        means, variances = (np.stack([x[w].mean(0) for w in windows]) for x in (self.means, self.variances))
        return means, variances, at + 1 - first

    def present(self, at: Array) -> tuple[Array, Array]:
        """Mean statistics of eight batches from all over the run, as the weights at these steps would give them."""
        rng = np.random.default_rng(0)
        kept = np.stack([rng.integers(1, t + 1, 8) for t in at])
        moved = self.true(at)[:, None] - self.true(kept)
        return (self.means[kept] + moved).mean(1), self.variances[kept].mean(1)

    def by_layer(self, values: Array, mean: Callable[..., Array] = np.mean, live: bool = False) -> Array:
        """A mean over the channels of each layer."""
        return np.stack([mean(values[:, part], axis=1) for part in (self.live if live else self.parts)], axis=1)

    def w(self, at: Array, m: Array, s: Array) -> Array:
        """Distance of moving statistics from the data's true ones, the largest of all layers, [times]."""
        mean = self.true(at) + self.side(at) * self.between * self.direction * self.sd
        d = distance(mean, self.variance, m, s, self.epsilon)
        return np.asarray(np.sqrt(self.by_layer(d**2, live=True)).max(1))

    def error(self, at: Array) -> Array:
        """Row ``error_p95``."""
        mu, v, _ = self.pool(at, SHORT)
        e = convergence_error(mu, v, *self.moving(at), self.epsilon)
        return np.stack([_quantiles("error", e[:, part], e[:, part])["error_p95"] for part in self.parts], axis=1)

    def rows(self, at: Array) -> dict[str, Array]:
        """Rows of LAYER_ROWS at these steps, each [times, L] or broadcast to it."""
        eps = self.epsilon
        (mu, v, n), (mu_long, _, n_long) = self.pool(at, SHORT), self.pool(at, LONG)
        m, s = self.moving(at)
        d = distance(mu, v, m, s, eps)
        me, ve = mean_error(mu, v, m, eps), variance_error(v, s, eps)
        e = convergence_error(mu, v, m, s, eps)
        rms = np.sqrt(self.by_layer(d**2, np.nanmean))
        specs, times = self.specs, at[:, None]
        n, n_long = n[:, None], n_long[:, None]

        def each(value: Callable[[SimLayer], float | None]) -> Array:
            return np.array([value(spec) for spec in specs], float)

        samples, between = each(lambda spec: spec.samples), each(lambda spec: spec.between)
        # Neighbours on two sides differ by twice `between`, and half of its square is the estimate.
        turns = np.where(each(lambda spec: spec.block) == 1, 2.0 * between**2, 0.0)
        noise = np.sqrt(1.0 / samples + turns)
        changed = self.by_layer((m - self.start[0]) ** 2 + (s - self.start[1]) ** 2, np.nanmean)
        out: dict[str, Any] = {
            "state": each(lambda spec: STATES.index(spec.state)),
            "updates": np.where([self.updating[part.start] for part in self.parts], times, 0),
            "pool_updates": n,
            "momentum": each(lambda spec: spec.momentum),
            "momentum_effective": each(lambda spec: spec.graph_momentum),
            "distance_rms": rms,
            "batch_mean_rms": np.sqrt(self.by_layer(mu**2)),
            "moving_mean_rms": np.sqrt(self.by_layer(m**2, np.nanmean)),
            "batch_variance_gm": np.exp(self.by_layer(np.log(v + eps))),
            "moving_variance_gm": np.exp(self.by_layer(np.log(s + eps), np.nanmean)),
            "noise_mean": noise,
            "noise_variance": np.sqrt(2.0 / samples),
            "noise_updates": np.minimum(times, 50),
            "between_within": np.minimum(32, samples) * (1.0 / samples + between**2),
            "shift": np.sqrt(self.by_layer((mu - mu_long) ** 2 / (v + eps))),
            "shift_noise": noise * np.sqrt(1.0 / n + 1.0 / n_long),
            "shift_span": np.where(n_long > n, 0.5 * (n_long - n), np.nan),
            "channels_nonfinite": self.by_layer(~np.isfinite(m + s), np.sum),
            "window_nonfinite": each(lambda spec: spec.poisoned_at) == times,
            "channels_collapsed": self.by_layer(v <= eps, np.sum),
            "worst_channel": self.by_layer(d, np.nanargmax),
            "since_min": rms,
            "since_mean": rms,
            "since_max": rms,
            "since_max_step": times,
            "start_distance": np.sqrt(changed),
        }
        kinds = {"distance": (d, d), "mean_error": (me, abs(me)), "variance_error": (ve, abs(ve)), "error": (e, e)}
        for name, (signed, size) in kinds.items():
            of_layers = [_quantiles(name, signed[:, part], size[:, part]) for part in self.parts]
            out |= {row: np.stack([values[row] for values in of_layers], axis=1) for row in of_layers[0]}
        for i, momentum in enumerate(REPLAY_MOMENTUMS):
            replayed = distance(mu, v, *self.moving(at, i), eps)
            out[replay_row(momentum)] = np.sqrt(self.by_layer(replayed**2, np.nanmean))
        return out


def _quantiles(name: str, signed: Array, size: Array) -> dict[str, Array]:
    """Median of what has a sign, 95th percentile and maximum of its size, of channels that are not NaN, [times]."""

    def taken(ordered: Array, share: float) -> Array:
        at = share * (np.sum(~np.isnan(ordered), axis=1) - 1)  # NaN is sorted to the end
        ends = (np.floor(at), np.ceil(at))
        below, above = (np.take_along_axis(ordered, end.astype(int)[:, None], 1)[:, 0] for end in ends)
        return np.asarray(below + (above - below) * (at - np.floor(at)))

    signed, size = np.sort(signed, axis=1), np.sort(size, axis=1)
    return {f"{name}_p50": taken(signed, 0.5), f"{name}_p95": taken(size, 0.95), f"{name}_max": taken(size, 1.0)}


def simulate(sim: Sim, run: str = "sim") -> History:
    steps = range(1, sim.steps + 1)
    recorded, next_record = [], 1
    for t in steps:
        if t >= next_record or t == sim.steps:
            recorded.append(t)
            next_record = t + max(1, t // 10)
    probed = [t for t in steps if sim.probe and (t in (1, 2, 4, 8) or t % sim.probe_every == 0 or t == sim.steps)]
    course = _Course(sim, {*recorded, *probed}, frozenset(probed))
    record_steps, loss_steps = np.array(recorded, np.int64), np.array(probed, np.int64)
    records = np.full((len(recorded), len(sim.layers), len(LAYER_ROWS)), np.nan, np.float32)
    rows: dict[str, Any] = {**course.rows(record_steps), **sim.overrides}
    for name, values in rows.items():
        records[:, :, LAYER_INDEX[name]] = values
    layers = tuple(
        Layer(
            i,
            s.name,
            s.channels,
            s.momentum,
            s.epsilon,
            trainable=s.state != "frozen",
            order=i,
            access=f"model.layers[{i}]",
        )
        for i, s in enumerate(sim.layers)
    )
    manifest = Manifest(
        layers,
        planned_steps=sim.planned,
        batch_size=_batch_size(sim),
        tolerance=sim.tolerance,
        ignore=sim.ignore,
        events=sim.events,
        not_evaluated=sim.not_evaluated,
    )
    return History(
        run,
        manifest,
        record_steps,
        record_steps.astype(np.float64),
        records,
        loss_steps,
        loss_steps.astype(np.float64),
        _losses(sim, course, loss_steps) if probed else np.empty((0, len(PROBES), len(LOSS_ROWS)), np.float32),
    )


def _batch_size(sim: Sim) -> int:
    return int(min(32, *(s.samples for s in sim.layers)))


def _losses(sim: Sim, course: _Course, at: Array) -> NDArray[np.float32]:
    """The losses at these steps, [times, probes, rows]."""
    level = np.array([sim.batch_loss(t) if callable(sim.batch_loss) else sim.batch_loss for t in at.tolist()])
    drawn = np.array([course.drawn[t] for t in at.tolist()])
    level = level * (1.0 + sim.loss_noise * drawn) + sim.start_loss * np.exp(-at / 5.0)
    mu, v, _ = course.pool(at, SHORT)
    m, s = course.moving(at)

    def loss(mean: Array, variance: Array) -> Array:
        return np.asarray(level * (1.0 + sim.gain * course.w(at, mean, variance) ** 2) + sim.noise_penalty)

    def forecast(updates: Array) -> Array:
        keep = course.beta ** updates[:, None]
        ahead = loss(keep * m + (1 - keep) * mu, keep * s + (1 - keep) * v)
        return np.where(np.isnan(updates), np.nan, ahead)

    values: dict[str, Any] = {
        "training": level + sim.dropout,
        "batch": level,
        "inference": loss(m, s),
        "recalibrated": loss(mu, v),
        "recalibrated_long": loss(*course.pool(at, LONG)[:2]),
        "recalibrated_now": loss(*course.present(at)),
        "now_batches": 8,
        "fit_loss": level + sim.dropout,
        "learning_rate": 1e-3,
        "batch_size": _batch_size(sim),
        "short_updates": np.minimum(at, SHORT),
        "long_updates": np.minimum(at, LONG),
    }
    values["updated"] = values["inference"] + sim.update_effect
    for i, momentum in enumerate(REPLAY_MOMENTUMS):
        values[replay_row(momentum)] = loss(*course.moving(at, i))
    horizon = np.zeros(len(at))
    updating = [i for i, spec in enumerate(sim.layers) if spec.state == "updating"]
    if updating:
        betas = course.beta[[course.parts[i].start for i in updating]]
        steps = steps_to_converge(course.error(at)[:, updating], betas)
        horizon = np.where(np.isfinite(steps), steps, 0.0).max(1)
    # The recorder's own points, as shares of the steps to converge by the statistics.
    shares = (1 / 32, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)[:FORECAST_POINTS]
    points = np.full((len(at), len(shares)), np.nan)
    for row, far in zip(points, horizon, strict=True):
        ahead = sorted({max(1, round(share * far)) for share in shares}) if far else []
        row[: len(ahead)] = ahead
    for i, updates in enumerate(points.T):
        values[f"forecast_step_{i}"], values[f"forecast_{i}"] = updates, forecast(updates)
    rows = np.full((len(at), len(PROBES), len(LOSS_ROWS)), np.nan, np.float32)
    for name, value in {**values, **sim.loss_overrides}.items():
        if name not in sim.not_evaluated:
            rows[:, 0, LOSS_INDEX[name]] = value
    if sim.validation is not None:
        rows[:, 1, LOSS_INDEX["batch"]] = level * sim.validation[0]
        rows[:, 1, LOSS_INDEX["inference"]] = level * sim.validation[1]
    return rows


def pose_network(momentum: float = 0.99, drift: float = 0.02, **kwargs: object) -> History:
    """Story 2 in figures: every layer's batch mean moves by a fiftieth of its deviation at each step."""
    specs = [SimLayer(f"bn_{i}", 16, momentum, drift=drift) for i in range(5)]
    sim = Sim(specs, steps=900, planned=900, batch_loss=0.1, start_loss=100.0, gain=10.0)
    for name, value in kwargs.items():
        setattr(sim, name, value)
    return simulate(sim, f"pose/{momentum:g}")


def band_locator(momentum: float = 0.999, steps: int = 400, layers: int = 12, **kwargs: object) -> History:
    """Story 1 in figures: depthwise layers with a true variance of 0.013, the rest 0.1 to 1."""
    specs = [
        SimLayer(
            f"block_{i // 3}_{'expand depthwise project'.split()[i % 3]}_BN",
            16,
            momentum,
            0.2,
            (0.4, 0.013, 0.8)[i % 3],
        )
        for i in range(layers)
    ]
    sim = Sim(specs, steps=steps, planned=steps, batch_loss=1.4, start_loss=15000.0, gain=400.0)
    for name, value in kwargs.items():
        setattr(sim, name, value)
    return simulate(sim, f"band/{momentum:g}")


def channel_snapshots(sim: Sim, steps: Collection[int]) -> list[NDArray[np.float32]]:
    """Window and moving statistics of ``simulate``'s run at some steps, a [S, 4, C] array a layer (CHANNEL_ROWS)."""
    at = np.array(sorted(steps))
    course = _Course(sim, steps)
    taken = np.stack([*course.pool(at, SHORT)[:2], *course.moving(at)], axis=1).astype(np.float32)
    return [taken[:, :, part] for part in course.parts]
