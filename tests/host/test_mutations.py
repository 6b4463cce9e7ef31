"""Mutated records through the reader, the report in all its forms, and every route: none ends in a crash.

``make test`` tries some dozens, ``make test-slow`` some thousands; the number is printed with ``-s``.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tb_bnlens import metadata
from tb_bnlens.cli import OK, main
from tb_bnlens.reader import list_runs, open_logdir
from tests.conftest import ROOT
from tests.fixtures.mutations import Events, events_of, mutated, write_events
from tests.fixtures.runs import write_run
from tests.host.test_fuzz import ask_everything, tried
from tests.host.test_routes import client

FORMAT1 = ROOT / "tests/fixtures/format1/exp/bn_lens/events.out.tfevents.1.format1.v2"
QUICK, MANY = 15, 2500
MOST_SECONDS = 60.0
"""Of processor time that one record may take; they take half a second and some ten at most."""


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Events]:
    """A record of a real run, and a made one."""
    made = write_run(tmp_path_factory.mktemp("made") / "exp", steps=12)
    return [events_of(FORMAT1), events_of(made.path)]


def survives(originals: list[Events], seed: int, directory: Path) -> None:
    write_events(directory / "exp" / metadata.RUN_SUFFIX, mutated(originals[seed % len(originals)], seed))
    write_events(directory / "other" / metadata.RUN_SUFFIX, originals[1])
    began = time.process_time()
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        for form in ([], ["--all"], ["--json"], ["--markdown"], ["--html", str(directory / "page.html")]):
            code = main(["report", str(directory), *form])
            assert code == OK or "exp" in said.getvalue(), f"seed {seed}, {form}: {said.getvalue()[-2000:]}"
            assert "BN Lens failed" not in said.getvalue(), f"seed {seed}: {said.getvalue()[-2000:]}"
    data = open_logdir(directory)
    for run in list_runs(data):
        ask_everything(client(data), run.name)
    assert time.process_time() - began < MOST_SECONDS, f"seed {seed}"
    tried["records"] += 1


def test_mutated_records(originals: list[Events], tmp_path: Path) -> None:
    for seed in range(QUICK):
        survives(originals, seed, tmp_path / str(seed))


@pytest.mark.slow
def test_many_mutated_records(originals: list[Events], tmp_path_factory: pytest.TempPathFactory) -> None:
    for seed in range(QUICK, MANY):
        survives(originals, seed, tmp_path_factory.mktemp("mutated"))


@pytest.fixture(scope="module", autouse=True)
def say_how_many() -> Iterator[None]:
    yield
    print(f"\nmutations: {tried['records']} records and {tried['requests']} requests tried")
