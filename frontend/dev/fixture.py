"""Synthetic records of a broken and a healthy run, in the shape of frontend/src/wire.ts."""

from __future__ import annotations

import math
import sys
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tb_bnlens.metadata import LAYER_ROWS, REPLAY_MOMENTA, replay_row

TOLERANCE = 0.1
EPSILON = 1e-3


def mobilenet_names() -> list[tuple[str, int]]:
    """The 52 BatchNorm layers of MobileNetV2 at alpha 0.5, with about their widths."""
    names = [("bn_Conv1", 16), ("expanded_conv_depthwise_BN", 16), ("expanded_conv_project_BN", 8)]
    for block in range(1, 17):
        width = 48 + 32 * block
        names += [
            (f"block_{block}_expand_BN", width),
            (f"block_{block}_depthwise_BN", width),
            (f"block_{block}_project_BN", max(8, width // 6)),
        ]
    return [*names, ("Conv_1_bn", 1280)]


class Run:
    """Exact moving averages over made-up batch statistics, so that every row fits the others."""

    def __init__(self, name: str, momentum: float, steps: int, layers: list[tuple[str, int]], seed: int = 0) -> None:
        self.name, self.momentum, self.layers = name, momentum, layers
        self.hostile = "<" in name
        every = max(1, steps // 200)
        self.steps = np.arange(0, steps + 1, every, dtype=np.float64)
        self.wall = 1.79e9 + self.steps * 0.42
        rng = np.random.default_rng(seed)
        self.rows = np.full((len(self.steps), len(layers), len(LAYER_ROWS)), np.nan, np.float32)
        self.channels: list[tuple[np.ndarray, np.ndarray]] = []
        for index, (layer, width) in enumerate(layers):
            self._simulate(index, min(width, 64), "depthwise" in layer, every, rng)

    def _simulate(self, index: int, width: int, depthwise: bool, every: int, rng: np.random.Generator) -> None:
        final = np.exp(rng.normal(math.log(0.013 if depthwise else 0.6), 0.9, width))
        mean = rng.normal(0, 0.25 * np.sqrt(final), width)
        total = len(self.steps)
        settle = 1 + 4 * np.exp(-self.steps / 30)
        noise = 0.06
        betas = np.array([self.momentum, *REPLAY_MOMENTA])[:, None]
        keep = betas**every
        moving_mean, moving_variance = np.zeros((len(betas), width)), np.ones((len(betas), width))
        snapshots: list[np.ndarray] = []
        when: list[float] = []
        column = {name: i for i, name in enumerate(LAYER_ROWS)}
        for t in range(total):
            v = final * settle[t] * np.exp(0.05 * math.sin(t / 40))
            mu = mean * math.sqrt(settle[t])
            seen_mu = mu + noise * np.sqrt(v) * rng.normal(size=width)
            seen_v = v * (1 + 0.08 * rng.normal(size=width))
            moving_mean = keep * moving_mean + (1 - keep) * seen_mu
            moving_variance = keep * moving_variance + (1 - keep) * seen_v
            m, s = moving_mean[0], moving_variance[0]
            replayed = wasserstein(mu, v, moving_mean, moving_variance)
            w = replayed[0]
            mean_error = (m - mu) / np.sqrt(v + EPSILON)
            variance_error = (s - v) / np.maximum(v, EPSILON)
            e = np.maximum(np.abs(mean_error), np.abs(variance_error))
            row = {
                "state": 1,
                "updates": self.steps[t],
                "momentum": self.momentum,
                "distance_rms": rms(w),
                "distance_p50": np.median(w),
                "distance_p95": np.quantile(w, 0.95),
                "distance_max": w.max(),
                "mean_error_p95": np.quantile(np.abs(mean_error), 0.95),
                "variance_error_p95": np.quantile(np.abs(variance_error), 0.95),
                "variance_error_p50": np.median(variance_error),
                "error_p95": np.quantile(e, 0.95),
                "error_max": e.max(),
                "batch_mean_rms": rms(mu),
                "moving_mean_rms": rms(m),
                "batch_variance_gm": gm(v + EPSILON),
                "moving_variance_gm": gm(s + EPSILON),
                "noise_mean": noise,
                "noise_variance": 0.08,
                "worst_channel": int(w.argmax()),
                "since_min": rms(w) * 0.93,
                "since_max": rms(w) * 1.08,
                **{replay_row(b): rms(replayed[i + 1]) for i, b in enumerate(REPLAY_MOMENTA)},
            }
            for name, value in row.items():
                self.rows[t, index, column[name]] = value
            if t in (0, total // 8, total // 3, total - 1):
                snapshots.append(np.stack([mu, v, m, s]))
                when.append(self.steps[t])
        self.channels.append((np.array(when), np.array(snapshots, np.float32)))

    def stretch(self, layers: int, records: int) -> Run:
        """The same run with every layer and record repeated: size without the time to simulate it."""
        self.rows = np.tile(self.rows, (1, layers // len(self.layers), 1)).repeat(records // len(self.steps), axis=0)
        self.channels = self.channels * (layers // len(self.layers))
        self.layers = [(f"stage_{i // 20}/block_{i}/bn", 24) for i in range(layers)]
        self.steps = np.arange(len(self.rows), dtype=np.float64)
        self.wall = 1.79e9 + self.steps * 0.42
        return self

    def last(self, row: str, layer: int) -> float:
        return float(self.rows[-1, layer, LAYER_ROWS.index(row)])

    def converge(self, error: np.ndarray | float) -> np.ndarray:
        value = np.log(np.maximum(np.asarray(error), 1e-9) / TOLERANCE) / -math.log(self.momentum)
        return np.maximum(0, np.ceil(value))

    @cache  # noqa: B019
    def losses(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(3)
        at = self.rows[:, :, LAYER_ROWS.index("distance_rms")]
        batch = 1.4 + 15000 * np.exp(-self.steps / max(self.steps[-1] / 12, 5))
        batch = batch * np.exp(rng.normal(0, 0.12, len(batch)))
        gap = np.minimum(np.exp(13 * np.sqrt(at.mean(axis=1))) - 1, 17000)
        out = {
            "training": batch * np.exp(rng.normal(0, 0.02, len(batch))),
            "batch": batch,
            "recalibrated": batch * 1.08,
            "inference": batch * 1.08 + gap,
        }
        for beta in REPLAY_MOMENTA:
            d = self.rows[:, :, LAYER_ROWS.index(replay_row(beta))].mean(axis=1)
            out[replay_row(beta)] = batch * 1.08 + np.minimum(np.exp(13 * np.sqrt(d)) - 1, 17000)
        return out

    def series(self, row: str) -> np.ndarray:
        if row == "steps_to_converge":
            return self.converge(self.rows[:, :, LAYER_ROWS.index("error_p95")]).astype(np.float32)
        if row == "variance_ratio":
            moving, batch = (self.rows[:, :, LAYER_ROWS.index(f"{name}_variance_gm")] for name in ("moving", "batch"))
            return moving / batch
        return self.rows[:, :, LAYER_ROWS.index(row)]


def wasserstein(mu: np.ndarray, v: np.ndarray, m: np.ndarray, s: np.ndarray) -> np.ndarray:
    a = np.sqrt((v + EPSILON) / (s + EPSILON))
    return np.hypot(a - 1, (mu - m) / np.sqrt(s + EPSILON))


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def gm(x: np.ndarray) -> float:
    return float(np.exp(np.mean(np.log(x))))


@cache
def runs() -> dict[str, Run]:
    layers = mobilenet_names()
    hostile = [("<img src=x onerror=alert(1)>", 8), ("слой/нормализация/" + "x" * 160, 8), ("\"quoted\" & 'bn'", 4)]
    made = [
        Run("band/0.999", 0.999, 400, layers),
        Run("band/0.9", 0.9, 400, layers),
        Run("deep/200 layers", 0.99, 199, layers[:10]).stretch(200, 2000),
        Run("<b>hostile</b> & 'run'", 0.99, 50, hostile),
    ]
    return {run.name: run for run in made}
