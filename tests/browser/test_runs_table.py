"""The table of runs, the way into a run and back, and what is pinned in a run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.browser.page import (
    HEATMAP,
    assert_accessible,
    assert_no_sideways_scroll,
    link,
    open_run,
    panel,
    picture,
    settle,
)
from tests.conftest import wait_for
from tests.fixtures.runs import write_run
from tests.host.browser import Tab, tab
from tests.host.server import Server, tensorboard
from tests.host.test_browser import verdict, wait_until

pytestmark = pytest.mark.browser

LONG = "sweep/" + "rate=0.01,momentum=0.999," * 5 + "seed=1"
RUNS = {"a": 40, "b": 60, LONG: 20}


@pytest.fixture(scope="module")
def viewer(browser: Any, tmp_path_factory: pytest.TempPathFactory, viewer_python: str) -> Iterator[Server]:
    logdir = tmp_path_factory.mktemp("runs")
    for run, steps in RUNS.items():
        write_run(logdir / run, steps=steps)
    with tensorboard(logdir, python=viewer_python) as server:
        wait_for(lambda: sorted(server.run_names()) == sorted(RUNS), "all runs")
        yield server


def rows(opened: Tab) -> list[str]:
    return [button.get_attribute("title") for button in opened.frame.locator(".runs tbody th button").all()]


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 800)])
def test_several_runs_open_as_a_table(
    browser: Any, viewer: Server, theme: str, width: int, screenshots: Path, axe: str
) -> None:
    with tab(browser, viewer, theme=theme, width=width) as opened:
        frame = opened.open()
        table = panel(frame, "Runs")
        wait_until(opened, lambda: frame.locator(".runs td.cause.muted").count() == 0 and len(rows(opened)) == 3)
        for run in RUNS:
            summary = viewer.plugin("summary", run=run).json
            row = table.locator("tbody tr").filter(has=frame.get_by_title(run, exact=True))
            if summary["cause"] is not None:
                row.get_by_text(summary["cause"]).wait_for()
        assert_no_sideways_scroll(opened)
        assert_accessible(opened, axe)
        picture(opened, screenshots, f"runs-{theme}-{width}")
        table.get_by_role("button", name="Run", exact=True).click()
        wait_until(opened, lambda: rows(opened) == ["a", "b", LONG])
        table.get_by_role("button", name="Run", exact=True).click()
        wait_until(opened, lambda: rows(opened) == [LONG, "b", "a"])
        if width > 1000:  # a narrow page leaves the column out
            table.get_by_role("button", name="Last step").click()
            wait_until(opened, lambda: rows(opened) == ["b", "a", LONG])
        table.get_by_label("Filter runs by a regular expression").fill("^[ab]$")
        wait_until(opened, lambda: sorted(rows(opened)) == ["a", "b"])
        assert opened.complaints == []


def test_a_run_is_opened_and_back_leads_to_the_table(browser: Any, viewer: Server) -> None:
    with tab(browser, viewer) as opened:
        frame = opened.open()
        panel(frame, "Runs").get_by_role("button", name="b", exact=True).press("Enter")
        assert verdict(opened) == viewer.plugin("overview", run="b").json["verdict"]
        wait_until(opened, lambda: opened.page.url.endswith(f"#{link('b')}"))
        # The button that was pressed is gone, so Tab continues in the page that it opened.
        assert opened.frame.locator("main").evaluate("(main) => main === document.activeElement")
        opened.page.go_back()
        panel(opened.frame, "Runs").wait_for()
        assert opened.frame.locator("section.verdict").count() == 0
        opened.page.go_forward()
        opened.frame.locator("section.verdict").wait_for()
        opened.frame.get_by_role("button", name="All runs").click()
        panel(opened.frame, "Runs").wait_for()
        opened.page.go_back()
        opened.frame.locator("section.verdict").wait_for()
        assert opened.frame.locator(".picker-value").first.inner_text() == "b"
        assert opened.complaints == []


def test_ticked_runs_are_compared(browser: Any, viewer: Server, screenshots: Path, axe: str) -> None:
    with tab(browser, viewer) as opened:
        frame = opened.open()
        table = panel(frame, "Runs")
        compare = table.get_by_role("button", name="Compare")
        assert compare.is_disabled()
        for run in ("a", "b"):
            table.get_by_role("checkbox", name=f"Compare {run}", exact=True).check()
        compare.click()
        side_by_side = panel(frame, "Runs side by side")
        side_by_side.wait_for()
        shown = panel(frame, "Layers side by side").locator("tbody tr")
        wait_until(opened, lambda: shown.count() > 0)
        distances = [
            [layer["distance"] for layer in viewer.plugin("overview", run=run).json["layers"]] for run in ("a", "b")
        ]
        assert shown.count() == len(distances[0]) and None not in distances[0]
        settle(opened)
        assert_no_sideways_scroll(opened)
        assert_accessible(opened, axe)
        picture(opened, screenshots, "compare-ticked")
        opened.page.go_back()
        panel(opened.frame, "Runs").wait_for()
        assert opened.complaints == []


@pytest.mark.parametrize("width", [1280, 1440])
def test_nothing_is_clipped_beside_a_long_name(browser: Any, viewer: Server, width: int) -> None:
    with tab(browser, viewer, width=width) as opened:
        frame = open_run(opened, LONG)
        assert frame.locator(".toolbar").evaluate("e => e.clientHeight") < 60
        boxes = [e.bounding_box() for e in frame.locator(".toolbar > *:not(.spacer)").all()]
        for left, right in pairwise(boxes):
            assert left["x"] + left["width"] <= right["x"] + 1
        # Only a layer's name may be cut.
        for cell in frame.locator(".grid .cell:not(.name)").all():
            assert cell.evaluate("e => e.scrollWidth <= e.clientWidth + 1"), cell.inner_text()
        grid = frame.locator(".grid")
        assert grid.evaluate("e => e.scrollWidth <= e.clientWidth")


def test_a_pin_says_what_it_shows_and_goes_away(browser: Any, viewer: Server) -> None:
    steps = [int(step) for step in viewer.plugin("losses", run="b").frame["steps"]]
    with tab(browser, viewer) as opened:
        frame = open_run(opened, "b")
        losses = panel(frame, "Paired losses")
        chart = losses.locator(".u-over")
        box = chart.bounding_box()
        at = {"x": box["width"] * 0.4, "y": 40}
        chart.hover(position=at)
        shown = losses.locator(".chart-tip").inner_text()
        step = int(shown.split("\n")[0].removeprefix("step ").replace(",", ""))
        assert step in steps and "inference" in shown
        chart.click(position=at)
        unpin = losses.get_by_role("button", name=f"Unpin step {step}")
        unpin.wait_for()
        opened.page.mouse.move(0, 0)
        wait_until(opened, lambda: losses.locator(".where-at").inner_text() == f"step {step}")
        opened.page.keyboard.press("Escape")
        unpin.wait_for(state="detached")
        chart.click(position=at)
        unpin.wait_for()
        opened.page.wait_for_timeout(600)
        chart.click(position=at)
        unpin.wait_for(state="detached")
        assert opened.complaints == []


def test_a_click_in_the_heatmap_pins_what_it_shows_and_brings_the_layer_into_view(browser: Any, viewer: Server) -> None:
    with tab(browser, viewer, height=700) as opened:
        frame = open_run(opened, "b")
        heat = frame.locator(".heat")
        heat.scroll_into_view_if_needed()
        place = {"x": heat.bounding_box()["width"] * 0.6, "y": 8}
        heat.hover(position=place)
        read = panel(frame, HEATMAP).locator(".readout").inner_text()
        step = read.split(" · step ")[1].split(" ")[0]
        heat.click(position=place)
        frame.get_by_role("button", name=f"Unpin step {step}").first.wait_for(state="attached")
        detail = frame.locator(".detail-place")
        wait_until(opened, lambda: 0 <= detail.bounding_box()["y"] < 400)
        assert opened.complaints == []
