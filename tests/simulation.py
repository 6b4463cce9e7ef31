"""A simulator of runs: batch statistics with known mean, variance, noise and drift -> History, as ground truth.

Every row is computed per channel from the definitions in metadata.py, by other code than the recorder's. The losses
are a surrogate: the batch-mode loss times ``1 + gain * W^2`` of the statistics that inference would use against
the true ones, which is about what three measured networks did (0.1 -> 2.5x at gain 150).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

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

Array = NDArray[np.float64]
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


class _Channels:
    """One layer's channels in time."""

    def __init__(self, spec: SimLayer, rng: np.random.Generator, steps: int) -> None:
        c = spec.channels
        self.spec, self.rng = spec, rng
        self.kept = np.random.default_rng(0)
        self.mean = spec.true_mean * (1.0 if c == 1 else rng.choice([-1.0, 1.0], c))
        self.variance = np.full(c, spec.true_variance)
        self.variance[: spec.collapsed] = spec.epsilon / 2
        self.direction = rng.choice([-1.0, 1.0], c)
        self.beta = spec.momentum if spec.graph_momentum is None else spec.graph_momentum
        self.betas = np.array([*REPLAY_MOMENTUMS, self.beta])[:, None, None]
        # [momentums, 2, C]: moving mean and variance at each momentum, the layer's own last.
        self.averages = np.empty((len(self.betas), 2, c))
        self.averages[:, 0], self.averages[:, 1] = spec.start
        self.start = self.m.copy(), self.s.copy()
        self.means, self.variances = np.empty((steps + 1, c)), np.empty((steps + 1, c))
        self.updates = 0

    @property
    def m(self) -> Array:
        return self.averages[-1, 0]

    @property
    def s(self) -> Array:
        return self.averages[-1, 1]

    @property
    def shadow(self) -> dict[float, tuple[Array, Array]]:
        return {b: (x[0], x[1]) for b, x in zip(REPLAY_MOMENTUMS, self.averages, strict=False)}

    @property
    def sd(self) -> Array:
        return np.sqrt(self.variance)

    def true(self, t: int) -> tuple[Array, Array]:
        return self.mean + self.direction * self.spec.drift * t * self.sd, self.variance

    def step(self, t: int) -> None:
        spec, n = self.spec, self.spec.samples
        mean, variance = self.true(t)
        side = 1.0 if (t // spec.block) % 2 else -1.0
        x = mean + self.sd * (
            side * spec.between * self.direction + self.rng.standard_normal(spec.channels) / np.sqrt(n)
        )
        v = np.clip(variance * (1.0 + np.sqrt(2.0 / n) * self.rng.standard_normal(spec.channels)), 0.0, None)
        self.means[t], self.variances[t] = x, v
        if spec.state in ("frozen", "inference_mode", "never_updated"):
            return
        self.updates += 1
        self.averages = self.betas * self.averages + (1 - self.betas) * np.stack([x, v])
        if spec.poisoned_at is not None and t >= spec.poisoned_at:
            self.averages[-1, 0, 0] = np.nan

    def pool(self, t: int, length: int) -> tuple[Array, Array, int]:
        first = max(1, t - length + 1)
        return self.means[first : t + 1].mean(0), self.variances[first : t + 1].mean(0), t + 1 - first

    def present(self, t: int) -> tuple[Array, Array]:
        """Mean statistics of eight batches from all over the run, as the present weights would give them."""
        at = self.kept.integers(1, t + 1, 8)
        moved = np.stack([self.true(t)[0] - self.true(int(i))[0] for i in at])
        return (self.means[at] + moved).mean(0), self.variances[at].mean(0)

    def w(self, t: int, m: Array, s: Array) -> float:
        mean, variance = self.true(t)
        side = 1.0 if (t // self.spec.block) % 2 else -1.0
        mean = mean + side * self.spec.between * self.direction * self.sd
        live = slice(self.spec.collapsed, None)
        d = distance(mean, variance, m, s, self.spec.epsilon)[live]
        return float(np.sqrt(np.mean(d**2)))

    def error(self, t: int) -> float:
        """Row ``error_p95`` alone."""
        mu, v, _ = self.pool(t, SHORT)
        e = convergence_error(mu, v, self.m, self.s, self.spec.epsilon)
        return _quantiles("error", e, e)["error_p95"]

    def rows(self, t: int) -> dict[str, float]:
        spec, eps = self.spec, self.spec.epsilon
        mu, v, n = self.pool(t, SHORT)
        mu_long, _, n_long = self.pool(t, LONG)
        d = distance(mu, v, self.m, self.s, eps)
        me, ve = mean_error(mu, v, self.m, eps), variance_error(v, self.s, eps)
        e = convergence_error(mu, v, self.m, self.s, eps)
        # Neighbours on two sides differ by twice `between`, and half of its square is the estimate.
        turns = 2.0 * spec.between**2 if spec.block == 1 else 0.0
        noise = float(np.sqrt(1.0 / spec.samples + turns))
        rms = np.sqrt(np.nanmean(d**2))
        out = {
            "state": STATES.index(spec.state),
            "updates": self.updates,
            "pool_updates": n,
            "momentum": spec.momentum,
            "momentum_effective": np.nan if spec.graph_momentum is None else spec.graph_momentum,
            "distance_rms": rms,
            **_quantiles("distance", d, d),
            **_quantiles("mean_error", me, np.abs(me)),
            **_quantiles("variance_error", ve, np.abs(ve)),
            **_quantiles("error", e, e),
            "batch_mean_rms": np.sqrt(np.mean(mu**2)),
            "moving_mean_rms": np.sqrt(np.nanmean(self.m**2)),
            "batch_variance_gm": np.exp(np.mean(np.log(v + eps))),
            "moving_variance_gm": np.exp(np.nanmean(np.log(self.s + eps))),
            "noise_mean": noise,
            "noise_variance": np.sqrt(2.0 / spec.samples),
            "noise_updates": min(t, 50),
            "between_within": min(32, spec.samples) * (1.0 / spec.samples + spec.between**2),
            "shift": np.sqrt(np.mean((mu - mu_long) ** 2 / (v + eps))),
            "shift_noise": noise * np.sqrt(1.0 / n + 1.0 / n_long),
            "shift_span": 0.5 * (n_long - n) or np.nan,
            "channels_nonfinite": float(np.sum(~np.isfinite(self.m + self.s))),
            "window_nonfinite": float(spec.poisoned_at == t),
            "channels_collapsed": float(np.sum(v <= eps)),
            "worst_channel": float(np.nanargmax(d)),
            "since_min": rms,
            "since_mean": rms,
            "since_max": rms,
            "since_max_step": t,
            "start_distance": np.sqrt(np.nanmean((self.m - self.start[0]) ** 2 + (self.s - self.start[1]) ** 2)),
        }
        shadows = self.averages[:-1]
        replayed = np.sqrt(np.nanmean(distance(mu, v, shadows[:, 0], shadows[:, 1], eps) ** 2, axis=1))
        out |= zip(map(replay_row, REPLAY_MOMENTUMS), replayed, strict=True)
        return {k: float(x) for k, x in out.items()}


def _quantiles(name: str, signed: Array, size: Array) -> dict[str, float]:
    """Median of what has a sign, 95th percentile and maximum of its size, over the channels that are not NaN."""
    signed, size = signed[~np.isnan(signed)], np.sort(size[~np.isnan(size)])
    at = 0.95 * (len(size) - 1)
    below, above = size[int(at)], size[min(int(at) + 1, len(size) - 1)]
    p95 = below + (above - below) * (at - int(at))
    return {f"{name}_p50": float(np.median(signed)), f"{name}_p95": float(p95), f"{name}_max": float(size[-1])}


def simulate(sim: Sim, run: str = "sim") -> History:
    rng = np.random.default_rng(sim.seed)
    channels = [_Channels(spec, rng, sim.steps) for spec in sim.layers]
    records, losses = [], []
    record_steps, loss_steps = [], []
    next_record = 1
    for t in range(1, sim.steps + 1):
        for c in channels:
            c.step(t)
        if t >= next_record or t == sim.steps:
            record = np.full((len(channels), len(LAYER_ROWS)), np.nan, np.float32)
            for i, c in enumerate(channels):
                for name, value in {**c.rows(t), **sim.overrides}.items():
                    record[i, LAYER_INDEX[name]] = value
            records.append(record)
            record_steps.append(t)
            next_record = t + max(1, t // 10)
        if sim.probe and (t in (1, 2, 4, 8) or t % sim.probe_every == 0 or t == sim.steps):
            losses.append(_losses(sim, channels, t, rng))
            loss_steps.append(t)
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
        np.array(record_steps, np.int64),
        np.array(record_steps, np.float64),
        np.stack(records),
        np.array(loss_steps, np.int64),
        np.array(loss_steps, np.float64),
        np.stack(losses) if losses else np.empty((0, len(PROBES), len(LOSS_ROWS)), np.float32),
    )


def _batch_size(sim: Sim) -> int:
    return int(min(32, *(s.samples for s in sim.layers)))


def _losses(sim: Sim, channels: list[_Channels], t: int, rng: np.random.Generator) -> NDArray[np.float32]:
    level = sim.batch_loss(t) if callable(sim.batch_loss) else sim.batch_loss
    level = level * (1.0 + sim.loss_noise * rng.standard_normal()) + sim.start_loss * np.exp(-t / 5.0)

    def loss(stats: Callable[[_Channels], tuple[Array, Array]]) -> float:
        w = np.max([c.w(t, *stats(c)) for c in channels])
        return float(level * (1.0 + sim.gain * w**2) + sim.noise_penalty)

    def advanced(n: int) -> Callable[[_Channels], tuple[Array, Array]]:
        def stats(c: _Channels) -> tuple[Array, Array]:
            if c.spec.state != "updating":
                return c.m, c.s
            mu, v, _ = c.pool(t, SHORT)
            keep = c.beta**n
            return keep * c.m + (1 - keep) * mu, keep * c.s + (1 - keep) * v

        return stats

    row = np.full((len(PROBES), len(LOSS_ROWS)), np.nan, np.float32)
    values = {
        "training": level + sim.dropout,
        "batch": level,
        "inference": loss(lambda c: (c.m, c.s)),
        "recalibrated": loss(lambda c: c.pool(t, SHORT)[:2]),
        "recalibrated_long": loss(lambda c: c.pool(t, LONG)[:2]),
        "recalibrated_now": loss(lambda c: c.present(t)),
        "now_batches": 8,
        "fit_loss": level + sim.dropout,
        "learning_rate": 1e-3,
        "batch_size": _batch_size(sim),
        "short_updates": min(t, SHORT),
        "long_updates": min(t, LONG),
    }
    values["updated"] = values["inference"] + sim.update_effect
    for b in REPLAY_MOMENTUMS:
        values[replay_row(b)] = loss(lambda c, b=b: c.shadow[b])  # type: ignore[misc]
    errors = [(c.error(t), c.beta) for c in channels if c.spec.state == "updating"]
    steps = [float(steps_to_converge(e, beta)) for e, beta in errors]
    horizon = max((x for x in steps if np.isfinite(x)), default=0.0)
    # The recorder's own points, as shares of the steps to converge by the statistics.
    shares = (1 / 32, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)[:FORECAST_POINTS]
    for i, n in enumerate(sorted({max(1, round(share * horizon)) for share in shares}) if horizon else ()):
        values[f"forecast_step_{i}"] = n
        values[f"forecast_{i}"] = loss(advanced(n))
    for name, value in {**values, **sim.loss_overrides}.items():
        if name not in sim.not_evaluated:
            row[0, LOSS_INDEX[name]] = value
    if sim.validation is not None:
        row[1, LOSS_INDEX["batch"]] = level * sim.validation[0]
        row[1, LOSS_INDEX["inference"]] = level * sim.validation[1]
    return row


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
    rng = np.random.default_rng(sim.seed)
    channels = [_Channels(spec, rng, sim.steps) for spec in sim.layers]
    taken: list[list[Array]] = [[] for _ in channels]
    for t in range(1, sim.steps + 1):
        for c in channels:
            c.step(t)
        if t in steps:
            for c, snapshots in zip(channels, taken, strict=True):
                snapshots.append(np.stack([*c.pool(t, SHORT)[:2], c.m, c.s]))
    return [np.array(snapshots, np.float32) for snapshots in taken]
