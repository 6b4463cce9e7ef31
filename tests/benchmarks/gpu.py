"""What the lens costs on a GPU, where steps are queued and the host runs ahead of the device.

    python -m tests.benchmarks.gpu                          # Keras and PyTorch, steps of 5 and 50 ms
    python -m tests.benchmarks.gpu --framework torch --milliseconds 5 --seconds 20

Three trainings of one kind of network take turns by blocks of steps: without the lens, without it again (the null), and
with it. The device is waited for at the end of each block and nowhere else, so a lens that waits for it in steps that
it does not record shows as a ratio above the null's. Without a GPU it runs on the CPU and says so.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from tests.benchmarks.clock import OwnClock

BLOCK = 20
FEWEST = 4
"""Blocks of each way at least: the first is left out, and two halves are compared."""
SIDE, BATCH, WIDEST = 32, 32, 1024
WAYS = {"no lens": False, "no lens, again (the null)": False, "lens": True}


@dataclass
class Way:
    """One training: a step is queued by ``step``, and ``wait`` returns when the device has made it."""

    step: Callable[[], object]
    wait: Callable[[], object]
    clock: OwnClock = field(default_factory=OwnClock)
    schedule: Any = None
    """Of the lens, None where there is none."""
    enter: Callable[[], object] = lambda: None
    """Puts the weights of this training in place before a block."""
    leave: Callable[[], object] = lambda: None
    """Keeps them after it."""
    queued: list[float] = field(default_factory=list)
    """Seconds until the steps of each block were queued."""
    made: list[float] = field(default_factory=list)
    """Seconds until they were made."""

    def block(self) -> None:
        """Make and time a block of steps."""
        self.enter()
        started = time.perf_counter()
        with self.clock:
            for _ in range(BLOCK):
                self.step()
        self.queued.append(time.perf_counter() - started)
        self.wait()
        self.made.append(time.perf_counter() - started)
        self.leave()


def data() -> tuple[Any, Any]:
    """A batch: images [B, S, S, 3] and a target for each, [B, 1]."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(BATCH, SIDE, SIDE, 3)).astype("f4"), rng.normal(size=(BATCH, 1)).astype("f4")


def keras_ways(width: int, directory: Path) -> tuple[list[Way], str]:
    """Three trainings of one Keras model on TensorFlow."""
    import keras
    import tensorflow as tf

    from tests.benchmarks import overhead

    def network() -> tuple[Any, Any]:
        layers: list[Any] = [keras.Input((SIDE, SIDE, 3))]
        for _ in range(4):
            layers += [keras.layers.Conv2D(width, 3, padding="same", use_bias=False)]
            layers += [keras.layers.BatchNormalization(), keras.layers.ReLU()]
        model = keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1)])
        return model, lambda _: data()

    overhead.NETWORKS["gpu"] = network
    training = overhead.Training("gpu", epoch=50)
    devices = tf.config.list_physical_devices("GPU")

    def wait() -> None:
        np.asarray(training.model.trainable_variables[0])

    ways = []
    for index, lens in enumerate(WAYS.values()):
        way = training.way("BNLens" if lens else "no callback", directory / str(index))
        schedule = overhead.recorder_of(way.callbacks[0])._schedule if lens else None
        ways.append(Way(way.step, wait, way.clock, schedule, way.values.load, way.values.save))
    return ways, tf.config.experimental.get_device_details(devices[0])["device_name"] if devices else ""


def torch_ways(width: int, directory: Path) -> tuple[list[Way], str]:
    """Three trainings of PyTorch models of one kind."""
    import torch

    from tb_bnlens.torch import Recorder

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    x, y = (torch.from_numpy(part).to(device) for part in data())
    x = x.permute(0, 3, 1, 2).contiguous()
    loss_of = torch.nn.MSELoss()

    def training(lens: bool, where: Path) -> Way:
        torch.manual_seed(0)
        layers: list[Any] = []
        for index in range(4):
            layers += [torch.nn.Conv2d(width if index else 3, width, 3, padding=1, bias=False)]
            layers += [torch.nn.BatchNorm2d(width), torch.nn.ReLU()]
        layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(width, 1)]
        model = torch.nn.Sequential(*layers).to(device)
        optimizer = torch.optim.Adam(model.parameters())
        recorder = Recorder(model, str(where), loss=loss_of) if lens else None

        def step() -> None:
            optimizer.zero_grad()
            loss_of(model(x), y).backward()
            optimizer.step()
            if recorder is not None:
                recorder.record(x, y)

        way = Way(step, torch.cuda.synchronize if cuda else lambda: None)
        if recorder is not None:
            way.schedule = recorder._schedule
            way.clock.keep_time_for(way.schedule)
        return way

    ways = [training(lens, directory / str(index)) for index, lens in enumerate(WAYS.values())]
    return ways, torch.cuda.get_device_name() if cuda else ""


FRAMEWORKS: dict[str, Callable[[int, Path], tuple[list[Way], str]]] = {"keras": keras_ways, "torch": torch_ways}


def width_for(make: Callable[[int, Path], tuple[list[Way], str]], milliseconds: float) -> int:
    """The width at which a step takes about that long."""
    width = 8
    while width < WIDEST:
        with tempfile.TemporaryDirectory() as directory:
            (way, *_), _ = make(width, Path(directory))
            way.block()
            way.block()
        if 1e3 * way.made[-1] / BLOCK >= milliseconds:
            break
        width *= 2
    return width


def measure(framework: str, milliseconds: float, seconds: float) -> None:
    """Train in turn, and print what the lens costs and where its time goes."""
    make = FRAMEWORKS[framework]
    width = width_for(make, milliseconds)
    with tempfile.TemporaryDirectory() as directory:
        ways, device = make(width, Path(directory))
        ends = time.monotonic() + seconds
        while time.monotonic() < ends or len(ways[0].made) < FEWEST:
            for way in random.sample(ways, len(ways)):
                way.block()
    base = ways[0]
    rounds = len(base.made)
    print(f"\n{framework}, {device or 'no GPU: on the CPU'}; width {width}, {rounds * BLOCK} steps of each")
    print(f"{'':28}{'ms a step':>10}{'queued in':>10}{'ratio, first half':>20}{'second half':>14}")
    halves = slice(1, rounds // 2), slice(rounds // 2, rounds)
    for name, way in zip(WAYS, ways, strict=True):
        made, queued = (1e3 * float(np.median(times)) / BLOCK for times in (way.made, way.queued))
        first, second = (sum(way.made[half]) / max(sum(base.made[half]), 1e-9) for half in halves)
        print(f"{name:28}{made:>10.2f}{queued:>10.2f}{first:>20.3f}{second:>14.3f}")
    schedule = ways[-1].schedule
    spent = ", ".join(f"{kind} {cost.total:.2f}" for kind, cost in schedule.costs.items())
    print(f"seconds of the lens: {spent}; tracing and first runs {schedule.excluded:.2f}")


def main() -> None:
    """Print a table for each framework and length of a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", choices=sorted(FRAMEWORKS), action="append", help="default: both")
    parser.add_argument("--milliseconds", type=float, action="append", help="of a step; default: 5 and 50")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each table")
    options = parser.parse_args()
    for framework in options.framework or FRAMEWORKS:
        for milliseconds in options.milliseconds or (5.0, 50.0):
            measure(framework, milliseconds, options.seconds)


if __name__ == "__main__":
    main()
