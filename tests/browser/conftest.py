"""Short real trainings in one log directory, and a TensorBoard on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.page import AXE
from tests.conftest import skip_unless_ci, wait_for
from tests.host.conftest import browser, screenshots  # noqa: F401  (fixtures of this folder too)
from tests.host.server import Server, tensorboard


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core, which `npm ci` puts there."""
    if not AXE.exists():
        skip_unless_ci(f"no axe-core at {AXE}; npm ci in frontend/ installs it")
    return AXE.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def trained(
    browser: Any,  # noqa: F811  (before the training: without a browser there is nothing to train for)
    story: Callable[[str, str, int], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A log directory with each story as a training of seconds."""
    from tests.browser.trainings import SHORT, WHOLE

    logdir = tmp_path_factory.mktemp("stories")
    for name, train in SHORT.items():
        train(str(logdir / name))
    for name, (module, run) in WHOLE.items():
        shutil.copytree(story(module, run, 0), logdir / name)
    return logdir


@pytest.fixture(scope="session")
def stories(trained: Path, viewer_python: str) -> Iterator[Server]:
    with tensorboard(trained, python=viewer_python) as server:
        runs = len(list(trained.glob("*/*")))
        wait_for(lambda: len(server.run_names()) == runs, "all runs")
        yield server
