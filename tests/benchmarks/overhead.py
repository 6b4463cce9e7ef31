"""What the lens costs: interleaved training runs, with the noise of two identical baselines beside.

    python -m tests.benchmarks.overhead                      # some ten minutes
    python -m tests.benchmarks.overhead --network small --steps 30000
    python -m tests.benchmarks.overhead --network mobilenet --steps 400 --planned 400 --brief  # a whole run

One model is trained in all ways in turn, one step at a time, in an order that is shuffled in each round. A ratio is the
CPU time of one way over that of the first baseline in the same rounds. CPU time counts all threads. Tracing, which is
paid once, is reported separately, as is what the end of training takes where all planned steps are made.
"""

from __future__ import annotations

import argparse
import itertools
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
from tb_bnlens.frameworks.keras3.layers import find_layers
from tests.benchmarks.clock import OwnClock

PLANNED = 500_000
"""Steps that the callbacks are told will be made, far more than are."""
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


class Values:
    """Weights, statistics and optimizer of one way, which are put into the model for its steps."""

    def __init__(self, model: Any):
        variables = [v.value for v in (*model.variables, *model.optimizer.variables)]
        kept = [tf.Variable(v) for v in variables]
        self.load = tf.function(lambda: _assign(variables, kept), autograph=False)
        self.save = tf.function(lambda: _assign(kept, variables), autograph=False)


def _assign(to: list[Any], values: list[Any]) -> None:
    for variable, value in zip(to, values, strict=True):
        variable.assign(value)


@dataclass
class Way:
    """One way to train the one model, a step at a time."""

    name: str
    callbacks: list[Any]
    step: Callable[[], None]
    clock: OwnClock
    end: Callable[[], None]
    values: Values
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def timed_step(self) -> None:
        """Make a step, and note the CPU seconds of all threads and the wall seconds that it took."""
        self.values.load()
        cpu, wall = time.process_time(), time.perf_counter()
        with self.clock:
            self.step()
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)
        self.values.save()

    def timed_end(self) -> float:
        """End the training. Returns the CPU seconds that it took."""
        self.values.load()
        cpu = time.process_time()
        with self.clock:
            self.end()
        return time.process_time() - cpu


class Training:
    """One model, one trace and one input for all ways: two models of a kind differ by some percent in speed.

    Keras' own loop over the steps, taken apart so that the ways take turns step by step: the machine's moods last for
    seconds, and affect all ways equally.

    Args:
        network: a key of ``NETWORKS``.
        epoch: steps of an epoch.
        planned: steps that the callbacks are told will be made.
    """

    def __init__(self, network: str, epoch: int, planned: int = PLANNED):
        keras.utils.set_random_seed(0)
        self.model, make = NETWORKS[network]()
        x, y = (np.asarray(part, np.float32) for part in make(np.random.default_rng(0)))
        self.model.compile("adam", "mse", jit_compile=False)
        self._iterator = iter(tf.data.Dataset.from_tensors((x, y)).repeat())
        self._epoch, self._epochs = epoch, -(-planned // epoch)
        self.model.make_train_function()
        self._bare = self.model.train_function
        self._bare(self._iterator)  # the step is traced before any time is taken

    def way(self, name: str, path: Path) -> Way:
        """Begin a separate run with the callbacks of this name."""
        made = WAYS[name](str(path))
        self.model.train_function = self._bare
        callbacks = keras.callbacks.CallbackList(made, model=self.model, epochs=self._epochs, steps=self._epoch)
        callbacks.on_train_begin()
        function = self.model.train_function
        clock = OwnClock()
        for lens in made:
            if isinstance(lens, BNLens):
                clock.keep_time_for(recorder_of(lens)._schedule)
        count = itertools.count()

        def step() -> None:
            # Keras' own assignment takes 40 us where another function was set before, and no training makes it here.
            self.model.__dict__["train_function"] = function
            epoch, batch = divmod(next(count), self._epoch)
            if batch == 0:
                callbacks.on_epoch_begin(epoch)
            callbacks.on_train_batch_begin(batch)
            logs = function(self._iterator)
            callbacks.on_train_batch_end(batch, logs)
            if batch == self._epoch - 1:
                callbacks.on_epoch_end(epoch, {k: float(v) for k, v in logs.items()})

        def end() -> None:
            self.model.train_function = function
            callbacks.on_train_end()

        return Way(name, made, step, clock, end, Values(self.model))


def recorder_of(lens: BNLens) -> Any:
    """What records the fit that is going on."""
    (watch,) = lens._watches
    return watch.recorder if watch is not None else None


def main() -> None:
    """Print a table for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=sorted(NETWORKS), action="append", help="one or more; default all")
    parser.add_argument("--steps", type=int, default=10_000, help="of each way")
    parser.add_argument("--minutes", type=float, default=6.0, help="after which a network is left, whatever its steps")
    parser.add_argument("--planned", type=int, default=PLANNED, help="steps that the callbacks expect")
    parser.add_argument("--epoch", type=int, default=50, help="steps of an epoch, after which TensorBoard writes")
    parser.add_argument("--brief", action="store_true", help="leave out full density and histograms")
    parser.add_argument("--threads", type=int, default=1, help="of TensorFlow; one is the quietest")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    for network in options.network or NETWORKS:
        measure(network, options.steps, 60 * options.minutes, options.epoch, options.planned, options.brief)


def measure(network: str, steps: int, seconds: float, epoch: int, planned: int, brief: bool) -> None:
    """Train in turn, and print the ratios."""
    with tempfile.TemporaryDirectory() as directory:
        training = Training(network, epoch, planned)
        ways = [
            training.way(name, Path(directory) / str(i)) for i, name in enumerate(list(WAYS)[: 3 if brief else None])
        ]
        ends = time.monotonic() + seconds
        for _ in range(steps):
            for way in random.sample(ways, len(ways)):
                way.timed_step()
            if time.monotonic() > ends:
                break
        report(network, ways)


def report(network: str, ways: list[Way]) -> None:
    """One line a way: CPU and wall time over the baseline's, tracing apart, early and late in the run."""
    base = ways[0]
    steps = len(base.cpu)
    print(f"\n{network}: {steps} steps of {1e3 * np.median(base.wall):.2f} ms ({1e3 * np.median(base.cpu):.2f} ms CPU)")
    spans = [(0, steps), (0, steps // 10), (steps // 10, steps // 2), (steps // 2, steps)]
    heads = ["all steps", *(f"steps {a + 1} to {b}" for a, b in spans[1:])]
    print(f"{'CPU time':32}" + "".join(f"{head:>22}" for head in heads) + f"{'wall, second half':>22}")
    for way in ways:
        parts = "".join(f"{ratio(way.cpu[a:b], base.cpu[a:b]):>22}" for a, b in spans)
        a, b = spans[-1]
        print(f"{way.name:32}{parts}{ratio(way.wall[a:b], base.wall[a:b]):>22}")
        for lens in (c for c in way.callbacks if isinstance(c, BNLens)):
            recorder = recorder_of(lens)
            traced, share = traced_by(recorder), recorder._schedule.share
            apart, later = (sum(way.cpu) - traced) / sum(base.cpu), sum(way.cpu[1:]) / sum(base.cpu[1:])
            print(f"  tracing passes {traced:.2f} s; all steps without it {apart:.3f}; of itself it says {share:.4f}")
            # What is paid once is paid there: the first reading of the statistics and the stand-in are traced too.
            print(f"  the first step {way.cpu[0] - base.cpu[0]:.2f} s more; all others {later:.3f}")
            print(f"  it holds {held(lens)}")
            if recorder.planned_steps == steps:
                print(f"  the end takes {way.timed_end():.2f} s")
    print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def traced_by(recorder: Any) -> float:
    """CPU seconds that tracing the passes has taken, and their first runs."""
    return float(recorder._recording._prober._measurement.runner.tracing.cpu_seconds)


def held(lens: Any) -> str:
    """Memory of the arrays and tensors that the lens holds, beside that of the BatchNorm statistics themselves."""
    arrays = tensors = 0
    seen: set[int] = {id(lens.model)}
    waiting: list[Any] = [recorder_of(lens)]
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


def ratio(times: list[float], base: list[float], chunks: int = 50) -> str:
    """Total over total, and its standard error by the jackknife over stretches of the run: ``1.004 +- 0.002``."""
    pairs = np.array_split(np.stack([times, base]), min(chunks, len(base)), axis=1)
    sums = np.asarray([pair.sum(axis=1) for pair in pairs])
    left_out = (sums.sum(0) - sums)[:, 0] / (sums.sum(0) - sums)[:, 1]
    error = np.sqrt((len(sums) - 1) * np.mean(np.square(left_out - left_out.mean())))
    return f"{np.sum(times) / np.sum(base):.3f} +- {error:.3f}"


if __name__ == "__main__":
    main()
