"""What the lens costs in PyTorch, beside the noise of two identical baselines.

    .venv-frameworks/torch/bin/python -m tests.frameworks.torch_overhead

One network is trained in three ways in turn, a step at a time, in an order that is shuffled in each round. A ratio is
the CPU time of one way over that of the first baseline in the same rounds. The recorder may spend a share of
the time of its steps, not of the other trainings'.
"""

from __future__ import annotations

import random
import tempfile
import time
from typing import Any

import numpy as np
import torch

from tb_bnlens.torch import Recorder
from tests.benchmarks.clock import OwnClock

nn: Any = torch.nn
LOSS = nn.MSELoss()
ROUNDS, PLANNED = 900, 100_000


class Way:
    """One way to train the network."""

    def __init__(self, recorded: bool):
        torch.manual_seed(0)
        blocks = [
            nn.Sequential(nn.Conv2d(8 if i else 1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
            for i in range(10)
        ]
        self.model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), 1e-3)
        self.lens = Recorder(self.model, tempfile.mkdtemp(), LOSS, planned_steps=PLANNED) if recorded else None
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


def main() -> None:
    """Print the ratios: of all steps, and without the first third, which holds what is paid once."""
    torch.set_num_threads(1)
    ways = {"no recorder": Way(False), "no recorder, again (the null)": Way(False), "Recorder": Way(True)}
    for _ in range(ROUNDS):
        x, y = torch.randn(16, 1, 24, 24), torch.randn(16, 1)
        order = list(ways.values())
        random.shuffle(order)
        for way in order:
            way.step(x, y)
    base = np.array(ways["no recorder"].seconds)
    print(f"{1e3 * np.median(base):.1f} ms a step, {ROUNDS} rounds")
    for name, way in ways.items():
        own, late = np.array(way.seconds), slice(ROUNDS // 3, None)
        print(f"{name:32} all {own.sum() / base.sum():.4f}   later {own[late].sum() / base[late].sum():.4f}")


if __name__ == "__main__":
    main()
