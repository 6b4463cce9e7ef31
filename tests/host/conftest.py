"""TensorBoards that many tests look at: two runs, both loaders, with and without TensorFlow."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import skip_unless_ci, wait_for
from tests.fixtures.runs import write_run
from tests.host.browser import CHROMIUM, chromium
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


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for all tests."""
    if not Path(CHROMIUM).exists():
        skip_unless_ci(f"no browser at {CHROMIUM}; install Chromium or set BN_LENS_CHROMIUM to see the tab tested")
    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures go: BN_LENS_SCREENSHOTS, or a temporary directory."""
    chosen = os.environ.get("BN_LENS_SCREENSHOTS")
    return Path(chosen).absolute() if chosen else tmp_path_factory.mktemp("screenshots")


@pytest.fixture(scope="session")
def viewer(logdir: Path, viewer_python: str) -> Iterator[Server]:
    """One TensorBoard as most people run it, for the browser."""
    with tensorboard(logdir, python=viewer_python) as running:
        wait_for(lambda: len(running.run_names()) == len(NAMES), "both runs")
        yield running
