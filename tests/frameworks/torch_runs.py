"""Small trainings in PyTorch, with and without the recorder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tb_bnlens.history import History
from tb_bnlens.reader import list_runs, open_logdir, read_run
from tb_bnlens.report.build import run_report
from tb_bnlens.torch import Recorder

nn: Any = torch.nn
LOSS = nn.MSELoss()


def batches(count: int, seed: int = 0, size: int = 32) -> Iterator[tuple[Any, Any]]:
    """Inputs far from mean 0 and variance 1, and a linear target."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        x = torch.tensor(3 + 2 * rng.normal(size=(size, 8)), dtype=torch.float32)
        yield x, x[:, :1] - x[:, 1:2]


def small(momentum: float | None, dropout: float = 0.0) -> Any:
    extra = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16, momentum=momentum), nn.ReLU(), *extra, nn.Linear(16, 1))


def state(model: Any) -> dict[str, Any]:
    """Every parameter and buffer, as copies."""
    return {name: value.detach().double().numpy().copy() for name, value in model.state_dict().items()}


@dataclass
class Blob:
    """A training as it ended."""

    model: Any
    state: dict[str, Any]
    report: Any = None
    warnings: list[str] = field(default_factory=list)


def usual_step(model: Any, optimizer: Any, x: Any, y: Any, i: int) -> None:
    optimizer.zero_grad()
    LOSS(model(x), y).backward()
    optimizer.step()


def train(
    build: Callable[[], Any],
    where: Path | None = None,
    *,
    steps: int = 40,
    reshape: Callable[[Any], Any] = lambda x: x,
    step: Callable[..., None] = usual_step,
    mode: Callable[[Any, int], Any] | None = None,
    wrap: Callable[[Any], Any] = lambda model: model,
    parameters: Callable[[Any], Any] = lambda model: model.parameters(),
    loss: Callable[..., Any] = LOSS,
    metrics: bool = False,
    planned: int | None = None,
    size: int = 32,
) -> Blob:
    """Train a network, recorded where a directory is given."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    inner = build()
    with torch.no_grad():
        inner.eval()
        inner(reshape(next(batches(1))[0]))  # builds what is lazy
        inner.train()
    model = wrap(inner)
    optimizer = torch.optim.Adam(parameters(inner), 1e-2)
    lens = None
    if where is not None:
        measured = {"error": lambda p, t: (p - t).abs()} if metrics else None
        lens = Recorder(model, str(where), loss, metrics=measured, optimizer=optimizer, planned_steps=planned or steps)
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        for i, (x, y) in enumerate(batches(steps, size=size)):
            x, y = reshape(x), y.to(reshape(x).dtype)
            model.train()
            if mode is not None:
                mode(model, i)
            step(model, optimizer, x, y, i)
            if lens is not None:
                lens.record(x, y)
        if lens is not None:
            lens.close()
    said = [str(w.message) for w in raised if "BN Lens" in str(w.message)]
    return Blob(inner, state(inner), None if where is None else report_of(where), said)


def report_of(where: Path) -> Any:
    """The report of the one run in a directory."""
    return run_report(record_of(where))


def record_of(where: Path) -> History:
    """The one run in a directory."""
    provider = open_logdir(str(where))
    return read_run(provider, "", list_runs(provider)[0])
