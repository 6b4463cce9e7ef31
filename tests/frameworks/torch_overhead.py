"""What the lens costs in PyTorch, beside the noise of two identical baselines.

    .venv-frameworks/torch/bin/python -m tests.frameworks.torch_overhead
    .venv-frameworks/torch/bin/python -m tests.frameworks.torch_overhead --linear --layers 120 --rounds 300 --plan 300

Where all planned steps are made, the end of training is timed too, and the passes of its judgement.

One network is trained in three ways in turn, a step at a time, in an order that is shuffled in each round. A ratio is
the CPU time of one way over that of the first baseline in the same rounds. The recorder may spend a share of
the time of its steps, not of the other trainings'.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tb_bnlens.capture.passes import Passes
from tb_bnlens.torch import Recorder
from tests.benchmarks.clock import OwnClock

nn: Any = torch.nn
LOSS = nn.MSELoss()


class Way:
    """One way to train the network."""

    def __init__(self, recorded: bool, build: Callable[[], Any], planned: int):
        torch.manual_seed(0)
        self.model = build()
        self.optimizer = torch.optim.SGD(self.model.parameters(), 1e-3)
        own: dict[str, Any] = {"planned_steps": planned, "verbose": 0}
        self.lens = Recorder(self.model, tempfile.mkdtemp(), LOSS, **own) if recorded else None
        self.seconds: list[float] = []
        self.clock = OwnClock()
        if self.lens is not None:
            self.clock.keep_time_for(self.lens._schedule)

    def step(self, x: Any, y: Any) -> None:
        started = time.process_time()
        with self.clock:
            self.optimizer.zero_grad()
            LOSS(self.model(x), y).backward()
            self.optimizer.step()
            if self.lens is not None:
                self.lens.record(x, y)
        self.seconds.append(time.process_time() - started)

    def end(self) -> None:
        """Close the recorder, and print what that takes."""
        passes: dict[str, list[float]] = {}
        run = Passes.run

        def timed(self: Passes, name: str, batches: Any, *given: Any, **named: Any) -> Any:
            started = time.process_time()
            try:
                return run(self, name, batches, *given, **named)
            finally:
                passes.setdefault(name, []).append(time.process_time() - started)
                counts[name] = counts.get(name, 0) + len(batches)

        counts: dict[str, int] = {}
        Passes.run = timed  # type: ignore[method-assign]
        try:
            started = time.process_time()
            with self.clock:
                self.lens.close()  # type: ignore[union-attr]
            print(f"the end takes {time.process_time() - started:.2f} s; of it these passes:")
        finally:
            Passes.run = run  # type: ignore[method-assign]
        for name, seconds in sorted(passes.items(), key=lambda item: -sum(item[1])):
            print(f"{name:24}{sum(seconds):8.3f} s   {counts[name]:4} batches")


def convolutions(layers: int) -> Any:
    """A network of a millisecond a layer and step."""
    blocks = [
        nn.Sequential(nn.Conv2d(8 if i else 1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        for i in range(layers)
    ]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1))


def linear(layers: int) -> Any:
    """A network of a tenth of that, where what a pass sets up weighs most."""
    blocks = [nn.Sequential(nn.Linear(16, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU()) for _ in range(layers)]
    return nn.Sequential(*blocks, nn.Linear(16, 1))


def main() -> None:
    """Print the ratios: of all steps, and without the first third, which holds what is paid once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=10, help="of BatchNorm")
    parser.add_argument("--linear", action="store_true", help="between linear layers instead of convolutions")
    parser.add_argument("--rounds", type=int, default=900, help="steps of each way")
    parser.add_argument("--plan", type=int, default=100_000, help="steps that the recorder expects")
    options = parser.parse_args()
    torch.set_num_threads(1)

    def way(recorded: bool) -> Way:
        return Way(recorded, lambda: (linear if options.linear else convolutions)(options.layers), options.plan)

    ways = {"no recorder": way(False), "no recorder, again (the null)": way(False), "Recorder": way(True)}
    for _ in range(options.rounds):
        x = torch.randn(16, 16) if options.linear else torch.randn(16, 1, 24, 24)
        y = torch.randn(16, 1)
        order = list(ways.values())
        random.shuffle(order)
        for one in order:
            one.step(x, y)
    base = np.array(ways["no recorder"].seconds)
    print(f"{1e3 * np.median(base):.1f} ms a step, {options.rounds} rounds")
    for name, trained in ways.items():
        own, late = np.array(trained.seconds), slice(options.rounds // 3, None)
        print(f"{name:32} all {own.sum() / base.sum():.4f}   later {own[late].sum() / base[late].sum():.4f}")
    if options.plan == options.rounds:
        ways["Recorder"].end()


if __name__ == "__main__":
    main()
