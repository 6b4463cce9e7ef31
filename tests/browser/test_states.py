"""What the tab says where there is nothing to show, or where what is shown is old."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.browser.page import assert_accessible, assert_no_sideways_scroll, link, open_run, panel, picture
from tests.fixtures.runs import extend_run, write_run
from tests.host.browser import tab
from tests.host.server import Server, tensorboard
from tests.host.test_browser import verdict, wait_until

pytestmark = pytest.mark.browser

RUN = "band-locator/momentum-0.999"
ROUTE = "**/data/plugin/bn_lens/{}*"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_run_that_is_not_there(browser: Any, stories: Server, theme: str, screenshots: Path, axe: str) -> None:
    with tab(browser, stories, theme=theme) as opened:
        frame = opened.open(link("gone"))
        frame.get_by_text("is not in this log directory").wait_for()
        assert_accessible(opened, axe)
        picture(opened, screenshots, f"state-gone-{theme}")
        frame.get_by_role("button", name="Show all runs").click()
        panel(frame, "Runs").get_by_role("button", name=RUN).wait_for()
        assert opened.complaints == []


def test_a_run_that_appears_later(browser: Any, tmp_path: Path, viewer_python: str) -> None:
    write_run(tmp_path / "first", steps=10)
    with (
        tensorboard(tmp_path, "--reload_interval=1", python=viewer_python) as server,
        tab(browser, server) as opened,
    ):
        opened.open(link("second")).get_by_text("is not in this log directory").wait_for()
        extend_run(write_run(tmp_path / "second", steps=10), first_step=11)
        opened.frame.locator("section.verdict").wait_for()
        assert opened.frame.locator(".picker-value").first.inner_text() == "second"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_route_that_fails(browser: Any, stories: Server, theme: str, screenshots: Path, axe: str) -> None:
    sentence = "The record of this run cannot be read: it ends in the middle."
    with tab(browser, stories, theme=theme, width=800) as opened:
        fail = json.dumps({"error": sentence})
        opened.page.route(
            ROUTE.format("overview"), lambda r: r.fulfill(status=500, body=fail, content_type="application/json")
        )
        frame = opened.open(link(RUN))
        alert = frame.get_by_role("alert")
        alert.get_by_text(sentence).wait_for()
        alert.get_by_text("The next try is after").wait_for()
        assert_accessible(opened, axe)
        assert_no_sideways_scroll(opened)
        picture(opened, screenshots, f"state-failed-{theme}")
        opened.page.unroute(ROUTE.format("overview"))
        alert.get_by_role("button", name="Try again").click()
        assert "Inference" in verdict(opened)


def test_reading_takes_a_while(browser: Any, stories: Server, screenshots: Path) -> None:
    held: list[Any] = []
    with tab(browser, stories) as opened:
        # Playwright cannot take a built-in method.
        opened.page.route(ROUTE.format("overview"), lambda r: held.append(r))
        frame = opened.open(link(RUN))
        frame.get_by_role("status").get_by_text(f"Loading run “{RUN}”").wait_for()
        picture(opened, screenshots, "state-loading")
        # Polling asks only once more when it is answered.
        for request in held:
            request.continue_()
        opened.page.unroute(ROUTE.format("overview"))
        assert "Inference" in verdict(opened)


def test_a_tensorboard_that_has_gone(browser: Any, tmp_path: Path, viewer_python: str, screenshots: Path) -> None:
    write_run(tmp_path / "exp", steps=20)
    with tensorboard(tmp_path, python=viewer_python) as server, tab(browser, server) as opened:
        frame = open_run(opened, "exp")
        shown = verdict(opened)
        server.process.kill()
        server.process.wait()
        frame.get_by_role("button", name="Reload").click()
        banner = frame.get_by_text("TensorBoard does not answer")
        banner.wait_for()
        assert "The page shows data loaded at" in banner.inner_text()
        assert verdict(opened) == shown
        assert frame.locator(".dot.on").count() == 0
        picture(opened, screenshots, "state-stale")


def test_a_healthy_run_says_so_and_keeps_its_rules_folded(browser: Any, stories: Server, screenshots: Path) -> None:
    run = "band-locator/momentum-0.9"
    findings = stories.plugin("overview", run=run).json["findings"]
    with tab(browser, stories) as opened:
        frame = open_run(opened, run)
        folds = frame.locator(".fold")
        shown = {fold.locator("summary").inner_text().strip() for fold in folds.all()}
        passed = sum(f["status"] == "pass" for f in findings)
        assert f"{passed} passed" in shown
        for fold in folds.all():
            fold.locator("summary").click()
        names = folds.locator("dt").all_inner_texts()
        cards = frame.locator(".card h3").all_inner_texts()
        assert sorted(names + cards) == sorted(f["title"] for f in findings)
        picture(opened, screenshots, "state-healthy-folds")


def test_the_what_if_slider_and_the_theme_while_zoomed(browser: Any, stories: Server, screenshots: Path) -> None:
    with tab(browser, stories) as opened:
        frame = open_run(opened, RUN)
        momentum = panel(frame, "Momentum, replayed")
        before = momentum.locator(".figures").inner_text()
        slider = momentum.get_by_role("slider")
        slider.focus()
        for _ in range(40):
            opened.page.keyboard.press("ArrowLeft")
        wait_until(opened, lambda: momentum.locator(".figures").inner_text() != before)
        assert momentum.locator("output").inner_text() != "0.999"
        chart = panel(frame, "Paired losses").locator(".u-over")
        box = chart.bounding_box()
        opened.page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 60)
        opened.page.mouse.down()
        opened.page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 60, steps=4)
        opened.page.mouse.up()
        frame.get_by_role("button", name="Reset zoom").first.wait_for()
        opened.page.evaluate("document.body.classList.add('dark-mode')")
        opened.page.wait_for_timeout(300)
        picture(opened, screenshots, "state-zoom-whatif-dark")
        frame.get_by_role("button", name="Reset zoom").first.click()
        wait_until(opened, lambda: frame.get_by_role("button", name="Reset zoom").count() == 0)
        assert opened.complaints == []
