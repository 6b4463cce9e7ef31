"""What the windows between snapshots add up to."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np

from tb_bnlens.importer.constants import LayerConstants
from tb_bnlens.moments.decay import Decay
from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.recovery import Snapshot, WindowRecovery
from tb_bnlens.moments.segments import Segments
from tb_bnlens.moments.windows import Windows

CHANNELS = 16


def tracked(momentum: float) -> LayerConstants:
    return LayerConstants(f"m{momentum}", CHANNELS, momentum, 1e-3, False, False, -1, True)


def simulated(momentums: list[float], steps: int, start: float, updates: int = 1) -> list[Snapshot]:
    """Moving statistics over steps of so many updates each, fed with noise around 1."""
    rng = np.random.default_rng(0)
    beta = np.repeat(momentums, CHANNELS)
    mean, spread = np.full(len(beta), start), np.full(len(beta), 2.0)
    found = []
    for _ in range(steps + 1):
        found.append(Snapshot(mean.astype(np.float32), spread.astype(np.float32)))
        for _ in range(updates):
            mean = beta * mean + (1 - beta) * rng.normal(1.0, 0.2, len(beta))
            spread = beta * spread + (1 - beta) * rng.normal(2.0, 0.2, len(beta))
    return found


def pool(windows: Windows) -> Moments:
    merged = windows.short.merged()
    assert merged is not None
    return merged.moments


def test_a_window_longer_than_the_memory_is_no_reference() -> None:
    """It recovers the moving average itself, so that the distance would be 0 whatever the batches hold."""
    momentums = [0.9, 0.999]
    layers, segments = [tracked(m) for m in momentums], Segments([CHANNELS] * 2)
    snapshots = simulated(momentums, 102, 10.0)
    windows = Windows(snapshots[0], 0, WindowRecovery(layers, segments), segments)
    windows.add(snapshots[100], 100, np.array([100.0, 100.0]))
    pooled = pool(windows)
    assert np.isnan(pooled.mean[:CHANNELS]).all() and np.isnan(pooled.variance[:CHANNELS]).all()
    np.testing.assert_allclose(pooled.mean[CHANNELS:], 1.0, atol=0.2)
    windows.add(snapshots[101], 101, np.array([1.0, 1.0]))
    pooled = pool(windows)
    assert np.isfinite(pooled.mean).all()


def decay(steps: int, start: float, updates: int = 1) -> Any:
    segments = Segments([CHANNELS, CHANNELS])
    found = Decay(segments)
    snapshots = simulated([0.9, 0.99], steps, start, updates)
    for before, after in itertools.pairwise(snapshots):
        found.add(before, after)
    return found.observed(np.ones(2 * CHANNELS))


def test_decay_is_told_from_the_way_from_the_start() -> None:
    for updates in (1, 2, 6):
        expected = 1 - np.array([0.9, 0.99]) ** updates
        np.testing.assert_allclose(1 - decay(300, 10.0, updates), expected, rtol=0.1)


def test_decay_is_not_told_from_noise_alone() -> None:
    assert np.isnan(decay(300, 1.0)[1])
    assert np.isnan(Decay(Segments([4])).observed(np.ones(4))).all()


def test_layers_of_unlike_sizes_are_reduced_as_each_by_itself() -> None:
    rng, sizes = np.random.default_rng(0), [3, 64, 1, 40, 33, 2]
    segments = Segments(sizes)
    values = rng.normal(size=(2, 3, sum(sizes)))
    values[rng.random(values.shape) < 0.2] = np.nan
    values[..., 3:67] = np.nan  # a layer of nothing else
    values[0, 0, 70], values[1, 0, 71] = np.inf, -np.inf
    parts, shares = segments.split(values), (0.0, 0.5, 0.95, 1.0)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of slices of nothing but NaN
        for name in ("sum", "mean"):
            expected = np.stack([getattr(np, f"nan{name}")(part, axis=-1) for part in parts], -1)
            np.testing.assert_allclose(getattr(segments, name)(values), expected)
        finite = np.where(np.isinf(values), 0.0, values)
        for share, found in zip(shares, segments.quantiles(finite, shares), strict=True):
            expected = np.stack([np.nanquantile(part, share, axis=-1) for part in segments.split(finite)], -1)
            np.testing.assert_allclose(found, expected)
    largest = segments.argmax(values)
    expected = np.stack([np.argmax(np.where(np.isnan(part), -np.inf, part), axis=-1) for part in parts], -1)
    np.testing.assert_array_equal(largest, expected)
    for i, part in enumerate(parts):
        np.testing.assert_array_equal(
            segments.at(values, largest)[..., i], np.take_along_axis(part, expected[..., i : i + 1], -1)[..., 0]
        )
