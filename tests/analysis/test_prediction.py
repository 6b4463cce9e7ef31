"""Steps to converge, predicted early in a recorded training and seen in the rest of it.

Single layers scatter, and where the rate is so high that the statistics wander instead of settling they take several
times as long as foretold (4 at "blobs, 0.99, rate 0.01" and tolerance 0.1). What is asserted is the median, over all
layers and over the trainings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from demo import band_locator  # noqa: E402
from tb_bnlens import BNLens  # noqa: E402
from tb_bnlens.analysis.lag import table  # noqa: E402
from tb_bnlens.analysis.loss_gap import measure  # noqa: E402
from tb_bnlens.analysis.outlook import outlook  # noqa: E402
from tb_bnlens.history import History  # noqa: E402
from tb_bnlens.reader import open_logdir, read_run  # noqa: E402
from tests.diagnosis.healthy import attention, images, recurrent, residual  # noqa: E402
from tests.diagnosis.real_runs import batched, blobs, compiled, dense, fit  # noqa: E402

LOOKS = (0.1, 0.2, 0.4)
"""Shares of the run after which it is asked how long it will still take."""
LEAST = 20
"""Steps below which a prediction is not counted: one step more or less would be its ratio."""


def blob_run(run: str, momentum: float, epochs: int, rate: float = 1e-3, scale: float = 1.0, **options: Any) -> None:
    """Four layers on 4,096 samples; options are the seed of other labels, the batch and the optimizer."""
    x, y = blobs(4096, scale=scale)
    labels = blobs(4096, seed=options["labels"])[1] if "labels" in options else y
    data = batched((x, labels), options.get("batch", 128))
    fit(run, compiled(dense(momentum, depth=4), rate, options.get("optimizer")), data, epochs, overhead=math.inf)


def image_run(run: str, momentum: float, epochs: int, rate: Any, batch: int = 64, optimizer: Any = None) -> None:
    model = compiled(residual(momentum), rate, optimizer)
    fit(run, model, batched(images(2048), batch), epochs, overhead=math.inf)


def band_run(run: str, momentum: float, steps: int) -> None:
    """MobileNetV2 of 52 layers, see ``demo.band_locator``."""
    model = band_locator.network(96, 0.35, momentum)
    model.compile(keras.optimizers.Adam(1e-2), "mean_squared_error")
    lens = BNLens(run, on_error="raise", overhead=math.inf)
    data = band_locator.batches(96, 16, 0)
    model.fit(data, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[lens])


SMALL_RATE = "small blobs, 0.99, rate 0.0001"
TRAININGS: dict[str, Callable[[str], object]] = {
    SMALL_RATE: lambda run: blob_run(run, 0.99, 30, 1e-4, 0.1),
    "blobs, 0.99": lambda run: blob_run(run, 0.99, 20, scale=3.0),
    "blobs, 0.997": lambda run: blob_run(run, 0.997, 60, scale=0.3),
    "blobs, 0.99, rate 0.01": lambda run: blob_run(run, 0.99, 30, 1e-2),
    "blobs, 0.999": lambda run: blob_run(run, 0.999, 120, 3e-4),
    "SGD": lambda run: blob_run(run, 0.99, 15, batch=64, optimizer=keras.optimizers.SGD(0.05, momentum=0.9)),
    "AdamW": lambda run: blob_run(
        run, 0.98, 10, scale=0.2, batch=64, optimizer=keras.optimizers.AdamW(1e-3, weight_decay=0.01)
    ),
    "labels without meaning": lambda run: blob_run(run, 0.99, 15, 3e-3, batch=64, labels=3),
    "images, 0.99": lambda run: image_run(run, 0.99, 25, 1e-3),
    "images, 0.97": lambda run: image_run(run, 0.97, 10, 3e-3),
    "images, RMSprop": lambda run: image_run(run, 0.99, 20, 1e-3, optimizer=keras.optimizers.RMSprop(1e-3)),
    "images, cosine rate": lambda run: image_run(
        run, 0.995, 19, keras.optimizers.schedules.CosineDecay(5e-3, 1200), batch=32
    ),
    "attention": lambda run: attention(run, 0.99, 30, overhead=math.inf),
    "recurrent": lambda run: recurrent(run, 0.98, 12, overhead=math.inf),
    "band locator": lambda run: band_run(run, 0.97, 400),
}


def until(history: History, records: int) -> History:
    """The record as it stood after so many records."""
    probes = int(np.sum(history.loss_steps <= history.steps[records - 1]))
    return replace(
        history,
        steps=history.steps[:records],
        wall_times=history.wall_times[:records],
        layers=history.layers[:records],
        loss_steps=history.loss_steps[:probes],
        loss_wall_times=history.loss_wall_times[:probes],
        losses=history.losses[:probes],
    )


def of_layers(history: History) -> list[tuple[float, float]]:
    """(predicted, observed) steps of each layer at each look; inf where the run ended before."""
    error, steps, pairs = history.row("error_p95"), history.steps, []
    for share in LOOKS:
        records = int(np.searchsorted(steps, share * steps[-1])) + 1
        then = table(until(history, records))
        for i, predicted in enumerate(then.converge_updates):
            there = steps[records:][error[records:, i] <= then.tolerance]
            observed = float(there[0] - steps[records - 1]) if len(there) else math.inf
            if predicted >= LEAST:
                pairs.append((float(predicted), observed))
    return pairs


def of_the_loss(history: History) -> list[tuple[float, float]]:
    """The same for the inference loss, by the forecast of the last probe before each look."""
    inference, recalibrated, pairs = history.loss("inference"), history.loss("recalibrated"), []
    for share in LOOKS:
        records = int(np.searchsorted(history.steps, share * history.steps[-1])) + 1
        then = until(history, records)
        losses = measure(then)
        step = int(then.loss_steps[-1])
        predicted = outlook(then.manifest, losses, table(then), step).loss_steps
        fine = inference <= (1 + then.manifest.tolerance) * recalibrated
        there = history.loss_steps[(history.loss_steps > step) & fine]
        if predicted >= LEAST:
            pairs.append((predicted, float(there[0] - step) if len(there) else math.inf))
    return pairs


def trained(name: str, directory: Path, seed: int = 2) -> History:
    # Seeds 0 and 1 are those that the form of the estimate was chosen on.
    keras.utils.set_random_seed(seed)
    TRAININGS[name](str(directory / name))
    return read_run(open_logdir(str(directory)), "", name)


def summary(pairs: list[tuple[float, float]]) -> tuple[float, str]:
    ratios = np.array([observed / predicted for predicted, observed in pairs if math.isfinite(predicted + observed)])
    if not len(ratios):
        return math.nan, "n = 0"
    low, median, high = np.quantile(ratios, (0.1, 0.5, 0.9))
    return float(median), f"median {median:.3f}, 10-90% {low:.2f} to {high:.2f}, n = {len(ratios)}"


def asked_for(history: History, tolerance: float) -> History:
    return replace(history, manifest=replace(history.manifest, tolerance=tolerance))


def show(capsys: pytest.CaptureFixture[str], what: str, pairs: list[tuple[float, float]]) -> float:
    median, words = summary(pairs)
    with capsys.disabled():
        print(f"\nobserved / predicted steps, {what}: {words}")
    return median


def test_steps_of_layers_whose_weights_move_little(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A single training has four layers.
    histories = [trained(SMALL_RATE, tmp_path / str(seed), seed) for seed in (0, 2, 3)]
    for tolerance in (0.1, 0.2):
        pairs = [pair for history in histories for pair in of_layers(asked_for(history, tolerance))]
        assert 0.9 <= show(capsys, f"tolerance {tolerance}", pairs) <= 1.1


@pytest.mark.slow
def test_steps_in_many_trainings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    histories = {name: trained(name, tmp_path) for name in TRAININGS}
    medians: dict[str, float] = {}
    of_losses: list[tuple[float, float]] = []
    for tolerance in (0.1, 0.2, 0.3):
        asked = {name: asked_for(history, tolerance) for name, history in histories.items()}
        layers = {name: of_layers(history) for name, history in asked.items()}
        for name, pairs in layers.items():
            show(capsys, f"tolerance {tolerance}, {name}", pairs)
        every = [pair for pairs in layers.values() for pair in pairs]
        medians[f"layers at {tolerance}"] = show(capsys, f"tolerance {tolerance}, all layers", every)
        # A network of many layers counts as much as one of few.
        each = [summary(pairs)[0] for pairs in layers.values()]
        medians[f"trainings at {tolerance}"] = float(np.nanmedian(each))
        loss = [pair for history in asked.values() for pair in of_the_loss(history)]
        show(capsys, f"tolerance {tolerance}, the loss", loss)
        of_losses += loss
    # A training has one loss, so those of all tolerances are taken together.
    medians["loss"] = show(capsys, "the loss", of_losses)
    with capsys.disabled():
        print("\n" + ", ".join(f"{name}: {median:.3f}" for name, median in medians.items()))
    assert all(0.9 <= median <= 1.1 for median in medians.values()), medians
