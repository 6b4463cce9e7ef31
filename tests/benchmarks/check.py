"""What ``check`` takes, in units of ``evaluate`` on the same batches.

    python -m tests.benchmarks.check
    python -m tests.benchmarks.check --stories

The second trains the stories of ``demo/`` and checks each model on batches of its training data. CPU time of all
threads. The first ``evaluate`` of a model traces it, and so does a check.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import tb_bnlens
from tb_bnlens.capture.stopwatch import OneTimeCost
from tb_bnlens.frameworks.keras3.runner import KerasRunner
from tests.benchmarks.overhead import NETWORKS

BATCHES = 24
STEPS = 400
"""Training steps, after which momentum 0.999 has left two thirds of the initial statistics."""


def main() -> None:
    """Print a line for each network and training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stories", nargs="*", metavar="STORY", help="these, or all, in place of the networks")
    parser.add_argument("--network", choices=sorted(NETWORKS), action="append", help="one or more; default all")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if options.stories is not None:
        for name, (train, data) in stories().items():
            if not options.stories or any(story in name for story in options.stories):
                with tempfile.TemporaryDirectory() as log_dir:
                    model = train(log_dir)
                measure(name, model, data())
        return
    for name in options.network or NETWORKS:
        model, data = made(name)
        model.fit(data.repeat(), steps_per_epoch=STEPS, epochs=1, shuffle=False, verbose=0)
        measure(f"{name}, momentum 0.999", model, data)
        tb_bnlens.recalibrate(model, data)
        measure(f"{name}, recalibrated", model, data)


def made(name: str) -> tuple[Any, Any]:
    """A compiled model with moving statistics that follow slowly, and batches for it."""
    keras.utils.set_random_seed(0)
    model, make = NETWORKS[name]()
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.999
    model.compile(keras.optimizers.Adam(3e-4), "mse")
    rng = np.random.default_rng(0)
    pairs = [tuple(np.asarray(part, np.float32) for part in make(rng)) for _ in range(BATCHES)]
    x, y = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return model, tf.data.Dataset.from_tensor_slices((x, y)).batch(len(pairs[0][0]))


def stories() -> dict[str, tuple[Callable[[str], Any], Callable[[], Any]]]:
    """Run of a story -> its training, and batches of its training data."""
    from demo import band_locator, frozen_base, pose_network, pretrained_base

    def batched(arrays: Any, size: int) -> Any:
        return tf.data.Dataset.from_tensor_slices(arrays).batch(size).take(BATCHES)

    def images(run: Any) -> Any:
        return batched(frozen_base.stripes(3200, 0, run.keywords["contrast"], run.keywords["brightness"]), 32)

    def signals(run: Any) -> Any:
        given = {name: run.keywords[name] for name in ("gain", "offset") if name in run.keywords}
        return batched(pretrained_base.recordings(5120, 0, **given), 256)

    found: dict[str, tuple[Callable[[str], Any], Callable[[], Any]]] = {}
    for name, run in band_locator.RUNS.items():
        found[f"band-locator/{name}"] = run, lambda: band_locator.batches(96, 16, 0).take(BATCHES)
    for name, train in pose_network.RUNS.items():
        found[f"pose-network/{name}"] = train, lambda: pose_network.batches(0).take(BATCHES)
    for name, train in pretrained_base.RUNS.items():
        if isinstance(train, partial):  # the other one has no BatchNorm
            found[f"pretrained-base/{name}"] = train, partial(signals, train)
    for name, run in frozen_base.RUNS.items():
        found[f"frozen-base/{name}"] = run, partial(images, run)
    return found


def measure(title: str, model: Any, data: Any) -> None:
    """Time both, cold and warm, and count the passes."""
    model.make_test_function(force=True)
    cold = seconds(lambda: model.evaluate(data, verbose=0))
    warm = min(seconds(lambda: model.evaluate(data, verbose=0)) for _ in range(5))
    traced, passes, found = 0.0, Counter[str](), []

    def counted(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            passes[name] += 1
            return run(*args)

        return call

    kept = {name: getattr(KerasRunner, name) for name in ("inference", "batch", "training")}
    add = OneTimeCost.add_since

    def noted(cost: OneTimeCost, wall: float, cpu: float) -> None:
        nonlocal traced
        traced += time.process_time() - cpu
        add(cost, wall, cpu)

    try:
        OneTimeCost.add_since = noted  # type: ignore[method-assign,assignment]
        for name, run in kept.items():
            setattr(KerasRunner, name, counted(name, run))
        taken = seconds(lambda: found.append(tb_bnlens.check(model, data, batches=BATCHES, quiet=True)))
    finally:
        OneTimeCost.add_since = add  # type: ignore[method-assign]
        for name, run in kept.items():
            setattr(KerasRunner, name, run)
    counts = ", ".join(f"{name} {count}" for name, count in passes.items())
    print(
        f"{title}: evaluate {warm:.2f} s ({cold:.2f} s when it traces); check {taken:.2f} s, {taken / cold:.1f} times "
        f"a cold and {taken / warm:.1f} times a warm one; tracing {traced:.2f} s, the rest is "
        f"{(taken - traced) / warm:.1f} warm ones\n  passes over a batch: {counts}\n  {found[0].severity}: "
        f"{found[0].verdict}"
    )


def seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of all threads."""
    before = time.process_time()
    work()
    return time.process_time() - before


if __name__ == "__main__":
    main()
