"""Story 1 in PyTorch: the momentum is too small for the length of the run.

A small network of inverted residuals, as MobileNetV2 has them, must say in which column a bright band begins. Its
BatchNorm modules have a momentum of 0.001, which is the 0.999 of Keras: after 400 steps two thirds of the running
statistics are still their initial values, and ``model.eval()`` answers the same for every image.

``python -m demo band-locator-torch`` needs PyTorch, and neither TensorFlow nor Keras.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from tb_bnlens.torch import Recorder

nn: Any = torch.nn
WIDTH, BATCH, STEPS = 64, 16, 400


def batch(generator: Any) -> tuple[Any, Any]:
    """``(images [B, 1, 32, W], first columns [B, 1])``: a bright band of 8 columns in unit noise."""
    start = torch.randint(0, WIDTH - 8, (BATCH, 1), generator=generator)
    column = torch.arange(WIDTH)
    band = ((column >= start) & (column < start + 8)).float()
    noise = torch.randn((BATCH, 1, 32, WIDTH), generator=generator)
    return noise + 4.0 * band[:, None, None, :], start.float()


class InvertedResidual(nn.Module):  # type: ignore[misc, name-defined]
    """Expand, convolve each channel by itself, project (Sandler et al. 2018)."""

    def __init__(self, inner: int, outer: int, stride: int, momentum: float):
        super().__init__()
        wide = 4 * inner

        def norm(channels: int) -> Any:
            return nn.BatchNorm2d(channels, momentum=momentum, eps=1e-3)

        self.body = nn.Sequential(
            nn.Conv2d(inner, wide, 1, bias=False), norm(wide), nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), norm(wide), nn.ReLU6(),
            nn.Conv2d(wide, outer, 1, bias=False), norm(outer),
        )  # fmt: skip
        self.adds = stride == 1 and inner == outer

    def forward(self, x: Any) -> Any:
        return x + self.body(x) if self.adds else self.body(x)


def network(momentum: float) -> Any:
    """22 BatchNorm modules under one linear unit."""
    sizes = [(8, 12, 2), (12, 12, 1), (12, 16, 2), (16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 32, 2)]
    stem = [nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8, momentum=momentum, eps=1e-3), nn.ReLU6()]
    blocks = [InvertedResidual(*size, momentum) for size in sizes]
    return nn.Sequential(*stem, *blocks, nn.Flatten(), nn.Linear(32 * 2 * (WIDTH // 16), 1))


def train(log_dir: str, *, momentum: float, seed: int = 0, steps: int = STEPS) -> Any:
    """Train for 400 steps."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model, loss = network(momentum), nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    with Recorder(model, log_dir, loss, optimizer=optimizer, planned_steps=steps) as lens:
        for step in range(steps):
            x, y = batch(generator)
            optimizer.zero_grad()
            now = loss(model(x), y)
            now.backward()
            optimizer.step()
            lens.record(x, y)
            if step % 100 == 99:
                print(f"step {step + 1}: training loss {now.item():.4g}", flush=True)
    return model


RUNS = {
    "momentum-0.001": partial(train, momentum=0.001),
    "momentum-0.1": partial(train, momentum=0.1),
}
