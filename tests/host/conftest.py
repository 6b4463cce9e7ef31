"""TensorBoards that many tests look at: two runs, both loaders, with and without TensorFlow."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.runs import write_run
from tests.host.server import Server, tensorboard

NAMES = ["exp1", "sweep/a b"]


@pytest.fixture(scope="session")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that lags and a run that keeps up."""
    path = tmp_path_factory.mktemp("logs")
    write_run(path / NAMES[0], steps=40, momentum=0.999)
    write_run(path / NAMES[1], steps=20, momentum=0.5)
    return path


@pytest.fixture(
    scope="session",
    params=[("true", "with"), ("false", "with"), ("true", "without"), ("false", "without")],
    ids=lambda p: f"load_fast={p[0]}-{p[1]}_tensorflow",
)
def server(request: pytest.FixtureRequest, logdir: Path) -> Iterator[Server]:
    load_fast, tensorflow = request.param
    python = sys.executable if tensorflow == "with" else request.getfixturevalue("viewer_python")
    with tensorboard(logdir, f"--load_fast={load_fast}", python=python) as running:
        yield running
