"""The nastiest records in Chromium: the page answers, names stay text, and each fault is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from tb_bnlens import metadata
from tests.conftest import wait_for
from tests.fixtures.event_files import EventFile, layer_table, loss_table
from tests.fixtures.mutations import FLOATS, events_of, mutated, write_events
from tests.fixtures.runs import extend_run, manifest, write_run
from tests.host.browser import tab
from tests.host.server import Server, tensorboard

pytestmark = pytest.mark.browser

ANSWER = 5_000
"""Milliseconds within which the page runs a line of script, on a busy machine."""
LONG = "block/" * 16_000 + "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"
SCRIPT = "<img src=x onerror=\"console.error('/data/plugin/bn_lens/ owned')\">"

Write = Callable[[EventFile], None]


def far_apart(file: EventFile) -> None:
    """Steps and wall times between which neighbouring numbers lie more than a tick apart."""
    for step in (-(2**62), 2**40, 2**62, 2**62 + 1024):
        file.clock = 1e18
        file.layers(layer_table(3, updates=1, distance_rms=1.0), step)
        file.losses(loss_table(inference=2.0, batch=1.0), step)


def channels(file: EventFile) -> None:
    """A manifest that claims a thousand million of them."""
    layers = [{**layer, "channels": 10**9} for layer in asdict(manifest())["layers"]]
    file.manifest({**asdict(manifest()), "layers": layers}, 21)


def names(file: EventFile) -> None:
    """Names that a regular expression, a table and a page stumble over."""
    layers = [{"name": name, "channels": 4, "momentum": 0.999} for name in (LONG, SCRIPT, "a\u202e\u2028\x00b")]
    file.manifest({**asdict(manifest()), "layers": layers, "notes": [SCRIPT, LONG]}, 21)


def no_numbers(file: EventFile) -> None:
    """Tables of everything that is no measurement."""
    for step, value in enumerate(FLOATS, start=21):
        with np.errstate(all="ignore"):
            file.layers(np.full((3, len(metadata.LAYER_ROWS)), value), step)
            file.losses(np.full((len(metadata.PROBES), len(metadata.LOSS_ROWS)), value), step)
            file.channels(0, np.full((4, 4), value), step)


def many(file: EventFile) -> None:
    """Layers, events and notes beyond any network."""
    layers = [{"name": f"block_{i}/bn", "channels": 4, "momentum": 0.99} for i in range(3000)]
    events = [{"step": i, "kind": "note", "text": "x" * 3000} for i in range(3000)]
    file.manifest({"layers": layers, "events": events, "planned_steps": 2**62}, 0)
    for step in (1, 2, 3):
        file.layers(np.random.default_rng(step).random((3000, len(metadata.LAYER_ROWS))), step)


NASTY: dict[str, Write] = {f.__name__: f for f in (far_apart, channels, names, no_numbers, many)}
MUTATED = 4


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, viewer_python: str) -> Iterator[Server]:
    logdir = tmp_path_factory.mktemp("hostile")
    for name, write in NASTY.items():
        file = EventFile(logdir / name / metadata.RUN_SUFFIX)
        if write is not many:
            file.manifest(manifest(planned_steps=100), 0)
            extend_run(file)
        write(file)
    whole = events_of(write_run(logdir / "made", steps=12).path)
    for seed in range(MUTATED):
        write_events(logdir / f"seed {seed}" / metadata.RUN_SUFFIX, mutated(whole, seed))
    with tensorboard(logdir, python=viewer_python) as server:
        wait_for(lambda: len(server.run_names()) >= len(NASTY) + 1, "the runs")
        yield server


def answers(frame: Any) -> None:
    """The page runs a line of script, so nothing holds it up."""
    frame.wait_for_function("() => 6 * 7 === 42", timeout=ANSWER)


def test_the_table_of_runs(browser: Any, hostile: Server) -> None:
    with tab(browser, hostile) as opened:
        frame = opened.open()
        frame.get_by_role("row").nth(len(NASTY)).wait_for()
        answers(frame)
        assert opened.complaints == []


@pytest.mark.parametrize("name", [*NASTY, *(f"seed {seed}" for seed in range(MUTATED))])
def test_a_run(browser: Any, hostile: Server, name: str) -> None:
    if name not in hostile.run_names():
        pytest.skip("nothing of it can be read, so it is not listed")
    with tab(browser, hostile) as opened:
        frame = opened.open(f"bn_lens&p.bn_lens.run={name}")
        frame.locator("h1").wait_for(timeout=20_000)
        answers(frame)
        for axis in ("relative", "wall", "step"):
            for choice in frame.get_by_role("button", name=axis, exact=True).all():
                choice.click()
                answers(frame)
        for search in frame.get_by_label("Filter layers by a regular expression").all():
            search.fill("(a+)+$|(block/)*b")
            answers(frame)
            search.fill("")
        rows = frame.locator("[id^=layer-row-]").all()
        assert rows or name not in NASTY
        for row in rows[:2]:
            row.click()
            answers(frame)
        assert frame.locator("img").count() == 0
        assert [c for c in opened.complaints if "status: 404" not in c] == []
