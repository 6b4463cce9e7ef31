"""A log directory with every kind of run that the tab can meet: real trainings, made once and kept.

The stories of ``demo/`` train for a quarter of an hour on two cores; the rest takes two minutes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tb_bnlens import metadata
from tests.conftest import ROOT
from tests.fixtures.mutations import events_of, write_events

TORCH = ROOT / ".venv-frameworks" / "torch" / "bin" / "python"
"""Made by ``make test-frameworks NAMES=torch``; without it there is no run of PyTorch among the pictures."""
STORIES = ("band_locator", "pose_network", "pretrained_base", "frozen_base")
UNREADABLE = "ended/unreadable"
BEGAN = "ended/just-began"
KILLED = "ended/killed"
LONG_NAME = "other/<b>bold & long=" + "rate=0.01,momentum=0.999," * 3 + "seed=1"
AGE = 7200.0
"""Seconds since the last record of the run that was killed."""


def stories() -> dict[str, Callable[[str], object]]:
    """The stories of the demo, by the names of their runs."""
    import importlib

    return {
        f"{name.replace('_', '-')}/{run}": train
        for name in STORIES
        for run, train in importlib.import_module(f"demo.{name}").RUNS.items()
    }


def fit(log_dir: str, *, momentum: float, steps: int = 200, callbacks: tuple[Any, ...] = (), **options: Any) -> Any:
    """Train the small band locator; returns it."""
    import keras

    from demo import band_locator
    from tb_bnlens import BNLens
    from tests.browser.trainings import BATCH, WIDTH, small_band_locator

    keras.utils.set_random_seed(0)
    model = small_band_locator(momentum)
    data = band_locator.batches(WIDTH, BATCH, 0)
    lens = [BNLens(log_dir, **options)] if log_dir else []
    model.fit(data, epochs=4, steps_per_epoch=steps // 4, shuffle=False, verbose=0, callbacks=[*lens, *callbacks])
    return model


def stopped_early(log_dir: str) -> None:
    """End by a callback in the second of four epochs."""
    import keras

    class Enough(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = epoch == 1

    fit(log_dir, momentum=0.9, callbacks=(Enough(),))


def interrupted(log_dir: str) -> None:
    """End by Ctrl-C in the third epoch."""
    import contextlib

    import keras

    class CtrlC(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        fit(log_dir, momentum=0.99, callbacks=(CtrlC(),))


def silenced(log_dir: str) -> None:
    """Silence what the user knows."""
    fit(log_dir, momentum=0.999, ignore={"momentum-too-high": ["*"], "train-inference-gap": ["*"]})


def without_losses(log_dir: str) -> None:
    """Train a model with its own training step, compiled without a loss."""
    import keras
    import numpy as np
    import tensorflow as tf

    from tb_bnlens import BNLens

    class Own(keras.Sequential):  # type: ignore[misc]
        def train_step(self, data: Any) -> dict[str, Any]:
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
            self.optimizer.apply_gradients(
                zip(tape.gradient(loss, self.trainable_variables), self.trainable_variables, strict=True)
            )
            return {"loss": loss}

    keras.utils.set_random_seed(0)
    layers = keras.layers
    blocks = [
        layer
        for block in range(1, 4)
        for layer in (
            layers.Dense(24),
            layers.BatchNormalization(momentum=0.999, name=f"block_{block}_bn"),
            layers.ReLU(),
        )
    ]
    model = Own([keras.Input((12,)), *blocks, layers.Dense(1)])
    model.compile(keras.optimizers.Adam(3e-3))
    x = np.random.default_rng(0).normal(3.0, 2.0, (1600, 12)).astype(np.float32)
    model.fit(x, x[:, :1], batch_size=16, epochs=2, verbose=0, callbacks=[BNLens(log_dir)])


def checked(log_dir: str) -> None:
    """Judge a model that was trained without a lens."""
    import tb_bnlens
    from demo import band_locator
    from tests.browser.trainings import BATCH, WIDTH

    model = fit("", momentum=0.99, steps=200)
    tb_bnlens.check(model, band_locator.batches(WIDTH, BATCH, 0), log_dir, quiet=True)


def imported(log_dir: str) -> None:
    """Make a record of the weights that were saved during a training."""
    import keras

    from tb_bnlens.importer import import_checkpoints

    saved = Path(log_dir).with_name("checkpoints-to-import")
    saved.mkdir(parents=True)

    class Save(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.save(saved / f"step-{50 * (epoch + 1)}.keras")

    fit("", momentum=0.999, callbacks=(Save(),))
    import_checkpoints(str(saved), str(Path(log_dir).parent), run=Path(log_dir).name)
    shutil.rmtree(saved)


def in_torch(log_dir: str) -> None:
    """Train the band locator of the demo in an environment with PyTorch."""
    code = "import sys; from demo.band_locator_torch import RUNS; next(iter(RUNS.values()))(sys.argv[1])"
    subprocess.run([str(TORCH), "-c", code, log_dir], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def long(log_dir: str) -> None:
    """Write a million steps of 200 layers."""
    from tests.benchmarks.generate import plan, write

    write(log_dir, plan(1_000_000, 200))


def small() -> dict[str, Callable[[str], object]]:
    """What trains for seconds, by the names of the runs."""
    trainings: dict[str, Callable[[str], object]] = {
        "small/lagging": partial(fit, momentum=0.98),
        "small/silenced": silenced,
        "ended/stopped-early": stopped_early,
        "ended/interrupted": interrupted,
        "other/no-losses": without_losses,
        "other/check": checked,
        "other/imported": imported,
        "other/long": long,
        LONG_NAME: partial(fit, momentum=0.999, steps=40),
    }
    if TORCH.exists():
        trainings["band-locator-torch/momentum-0.001"] = in_torch
    return trainings


def cut(log_dir: Path, into: Path, keep: float, age: float) -> None:
    """Copy the first part of a record: what a run that still trains, or was killed, has written."""
    source = next((log_dir / metadata.RUN_SUFFIX).glob("events.out.tfevents.*"))
    events = events_of(source)
    events = events[: max(3, int(keep * len(events)))]
    late = time.time() - age - events[-1].wall_time
    for event in events:
        event.wall_time += late
    write_events(into / metadata.RUN_SUFFIX, events)


def unreadable(into: Path) -> None:
    """A record of a version that is to come."""
    from dataclasses import asdict

    from tests.fixtures.event_files import EventFile
    from tests.fixtures.runs import manifest

    EventFile(into / metadata.RUN_SUFFIX).manifest({**asdict(manifest()), "format": 9}, 1)


def make(logdir: Path) -> Path:
    """Train what is missing in ``logdir``, and renew the runs whose age matters."""
    for name, train in (stories() | small()).items():
        if (logdir / name).exists():
            continue
        print(f"training {name}", flush=True)
        unfinished = logdir.with_name(logdir.name + ".partial") / name
        shutil.rmtree(unfinished, ignore_errors=True)
        train(str(unfinished))
        (logdir / name).parent.mkdir(parents=True, exist_ok=True)
        unfinished.rename(logdir / name)
    for name in (UNREADABLE, BEGAN, KILLED):
        shutil.rmtree(logdir / name, ignore_errors=True)
    cut(logdir / "small/lagging", logdir / KILLED, 0.5, AGE)
    cut(logdir / "small/lagging", logdir / BEGAN, 0.0, 5.0)
    unreadable(logdir / UNREADABLE)
    return logdir


if __name__ == "__main__":
    print(json.dumps(str(make(Path(sys.argv[1]).absolute()))))
