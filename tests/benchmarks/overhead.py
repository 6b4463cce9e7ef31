"""What the lens costs: interleaved training runs, with the noise of two identical baselines beside.

    python -m tests.benchmarks.overhead                      # some three minutes
    python -m tests.benchmarks.overhead --rounds 20 --seconds 10 --network mobilenet

Each network is compiled once for each way to train and goes on training, a block of steps at a time, in an order that
is shuffled anew each round; a ratio is the median over rounds of one way's time a step over the first baseline's of
the same round. CPU time counts all threads. The first block of each way pays for tracing and is told apart.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import resource
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from tb_bnlens import BNLens
from tb_bnlens.capture.layers import find_layers

Batch = tuple[Any, Any]


def mobilenet() -> tuple[Any, Callable[[Any], Batch]]:
    """The band locator's MobileNetV2 at a small width: 52 BatchNorm layers."""
    base = keras.applications.MobileNetV2((32, 96, 1), alpha=0.35, include_top=False, weights=None)
    model = keras.Sequential([base, keras.layers.Flatten(), keras.layers.Dense(1)])
    return model, lambda rng: (rng.normal(size=(16, 32, 96, 1)), rng.normal(size=(16, 1)))


def small() -> tuple[Any, Callable[[Any], Batch]]:
    """A CNN of a few milliseconds a step."""
    layers: list[Any] = [keras.Input((16, 16, 3))]
    for width in (16, 32, 32):
        layers += [keras.layers.Conv2D(width, 3, 2, "same", use_bias=False), keras.layers.BatchNormalization()]
        layers += [keras.layers.ReLU()]
    model = keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1)])
    return model, lambda rng: (rng.normal(size=(16, 16, 16, 3)), rng.normal(size=(16, 1)))


NETWORKS = {"small": small, "mobilenet": mobilenet}
WAYS: dict[str, Callable[[str], list[Any]]] = {
    "no callback": lambda _: [],
    "no callback, again (the null)": lambda _: [],
    "BNLens": lambda path: [BNLens(path)],
    "BNLens, full density": lambda path: [BNLens(path, overhead=math.inf)],
    "TensorBoard(histogram_freq=1)": lambda path: [keras.callbacks.TensorBoard(path, histogram_freq=1)],
}


@dataclass
class Way:
    """One model in one long run, of which ``fit`` makes some more steps."""

    name: str
    fit: Callable[[int], None]
    callbacks: list[Any]
    first: tuple[float, float] = (0.0, 0.0)
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)


def prepare(network: str, name: str, path: Path, epoch: int) -> Way:
    """A model of its own, and Keras' loop over its steps: a ``fit`` a block would begin a record in each."""
    keras.utils.set_random_seed(0)
    model, make = NETWORKS[network]()
    rng = np.random.default_rng(0)
    x, y = (np.asarray(part, np.float32) for part in make(rng))
    model.compile("adam", "mse", jit_compile=False)
    data = tf.data.Dataset.from_tensors((x, y)).repeat()
    iterator = iter(data)
    made = WAYS[name](str(path))
    callbacks = keras.callbacks.CallbackList(made, model=model, epochs=1000, steps=epoch)
    model.make_train_function()
    callbacks.on_train_begin()
    state = {"epoch": 0}

    def fit(steps: int) -> None:
        done = 0
        while done < steps:
            callbacks.on_epoch_begin(state["epoch"])
            for batch in range(min(epoch, steps - done)):
                callbacks.on_train_batch_begin(batch)
                logs = model.train_function(iterator)
                callbacks.on_train_batch_end(batch, logs)
            done += min(epoch, steps - done)
            callbacks.on_epoch_end(state["epoch"], {k: float(v) for k, v in logs.items()})
            state["epoch"] += 1

    return Way(name, fit, made)


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """CPU seconds of all threads, and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    """Print a table for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=sorted(NETWORKS), action="append", help="one or more; default all")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a block of the baseline")
    parser.add_argument("--epoch", type=int, default=50, help="steps of an epoch, after which TensorBoard writes")
    options = parser.parse_args()
    for network in options.network or NETWORKS:
        measure(network, options.rounds, options.seconds, options.epoch)


def measure(network: str, rounds: int, seconds: float, epoch: int) -> None:
    """Train in turn, and print the ratios."""
    with tempfile.TemporaryDirectory() as directory:
        ways = [prepare(network, name, Path(directory) / str(i), epoch) for i, name in enumerate(WAYS)]
        for way in ways:
            way.first = timed(lambda way=way: way.fit(epoch))  # type: ignore[misc]
        _, wall = timed(lambda: ways[0].fit(epoch))
        block = max(round(seconds / (wall / epoch) / epoch), 1) * epoch
        for _ in range(rounds):
            for way in random.sample(ways, len(ways)):
                cpu, wall = timed(lambda way=way: way.fit(block))  # type: ignore[misc]
                way.cpu.append(cpu / block)
                way.wall.append(wall / block)
        report(network, ways, block, rounds)


def report(network: str, ways: list[Way], block: int, rounds: int) -> None:
    """One line a way: median ratios with quartiles, and what the first block took more than the baseline's."""
    base = ways[0]
    print(f"\n{network}: {1e3 * np.median(base.wall):.2f} ms a step ({1e3 * np.median(base.cpu):.2f} ms CPU),", end=" ")
    print(f"{rounds} rounds of {block} steps")
    print(f"{'':32}{'CPU time':>24}{'wall time':>24}{'first block':>14}")
    for way in ways:
        first = way.first[1] - base.first[1]
        print(f"{way.name:32}{spread(way.cpu, base.cpu):>24}{spread(way.wall, base.wall):>24}{first:>+12.1f} s")
    for way in ways:
        for lens in way.callbacks:
            if isinstance(lens, BNLens):
                print(f"{way.name} holds {held(lens)}")
    print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def held(lens: Any) -> str:
    """Memory of the arrays and tensors that the lens holds, beside that of the BatchNorm statistics themselves."""
    arrays = tensors = 0
    seen: set[int] = {id(lens.model)}
    waiting: list[Any] = [lens._recorder]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, np.ndarray):
            arrays += thing.nbytes
        elif tf.is_tensor(thing):
            tensors += int(np.prod(thing.shape)) * tf.as_dtype(thing.dtype).size
        elif isinstance(thing, (list, tuple, set, deque)):
            waiting += thing
        elif isinstance(thing, dict):
            waiting += thing.values()
        elif type(thing).__module__.startswith("tb_bnlens"):
            waiting += getattr(thing, "__dict__", {}).values()
    statistics = sum(2 * 4 * t.channels for t in find_layers(lens.model))
    return (
        f"{arrays / 2**20:.2f} MiB of arrays, {arrays / statistics:.0f} times the moving statistics "
        f"({statistics / 2**20:.2f} MiB), and {tensors / 2**20:.2f} MiB of training batches"
    )


def spread(times: list[float], base: list[float]) -> str:
    """Median ratio and its quartiles, e.g. ``1.004 (0.996-1.012)``."""
    low, middle, high = np.quantile(np.asarray(times) / np.asarray(base), (0.25, 0.5, 0.75))
    return f"{middle:.3f} ({low:.3f}-{high:.3f})"


if __name__ == "__main__":
    main()
