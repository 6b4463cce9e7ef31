"""Everything by keyboard: findings, the layer table, the run picker, menus, charts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.page import HEATMAP, open_run, panel
from tests.host.browser import Tab, tab
from tests.host.server import Server
from tests.host.test_browser import verdict, wait_until

pytestmark = pytest.mark.browser

RUN = "pose-network/rate-0.03"


def press(opened: Tab, *keys: str) -> None:
    for key in keys:
        opened.page.keyboard.press(key)


def tab_to(opened: Tab, selector: str, most: int = 80) -> None:
    """Press Tab until the element has the focus: nothing is reached by mouse alone."""
    for _ in range(most):
        if opened.frame.evaluate("s => document.activeElement.matches(s)", selector):
            return
        press(opened, "Tab")
    raise AssertionError(f"{most} times Tab do not lead to {selector}")


def test_findings(browser: Any, stories: Server) -> None:
    with tab(browser, stories) as opened:
        frame = open_run(opened, RUN)
        frame.locator(".toolbar button").first.focus()
        tab_to(opened, ".actions .copy")
        tab_to(opened, "#finding-drift > summary")
        press(opened, "Enter")
        wait_until(opened, lambda: frame.locator("#finding-drift").get_attribute("open") is None)
        press(opened, "Enter")
        wait_until(opened, lambda: frame.locator("#finding-drift").get_attribute("open") is not None)
        tab_to(opened, "#finding-drift .card-more > button")
        press(opened, "Space")
        wait_until(opened, lambda: "finding=drift" in opened.page.url)
        wait_until(opened, lambda: frame.locator(".grid-row.lit").count() > 0)
        press(opened, "Space")
        wait_until(opened, lambda: "finding=drift" not in opened.page.url)
        tab_to(opened, ".fold > summary")
        press(opened, "Enter")
        wait_until(opened, lambda: frame.locator(".fold[open]").count() == 1)


def test_the_layer_table(browser: Any, stories: Server) -> None:
    layers = [layer["name"] for layer in stories.plugin("overview", run=RUN).json["layers"]]

    with tab(browser, stories) as opened:
        frame = open_run(opened, RUN, layer=0)
        detail = frame.locator(".detail-panel h2")
        frame.locator("input.search").focus()
        tab_to(opened, ".grid[role=grid]")
        for keys, at in (
            (["ArrowDown", "ArrowDown"], 2),
            (["ArrowUp"], 1),
            (["End"], len(layers) - 1),
            (["ArrowDown"], len(layers) - 1),
            (["PageUp", "Home"], 0),
        ):
            press(opened, *keys)
            wait_until(opened, lambda at=at: detail.inner_text() == layers[at])
            active = frame.locator(".grid").get_attribute("aria-activedescendant")
            assert active == f"layer-row-{at}"
            assert frame.locator(f"#{active}").get_attribute("aria-selected") == "true"
        tab_to(opened, ".grid-head [role=columnheader].distance button")
        press(opened, "Enter")
        distance = frame.locator("[role=columnheader].distance")
        wait_until(opened, lambda: distance.get_attribute("aria-sort") == "descending")
        frame.locator("input.search").focus()
        opened.page.keyboard.type("project_bn$")
        wait_until(opened, lambda: frame.locator(".grid-row").count() == 5)


def test_the_run_picker_and_the_menus(browser: Any, stories: Server) -> None:
    with tab(browser, stories) as opened:
        frame = open_run(opened, RUN)
        frame.locator(".picker button").first.focus()
        press(opened, "Enter")
        frame.locator(".popover input").wait_for()
        opened.page.keyboard.type("dropout")
        wait_until(opened, lambda: frame.locator(".option").count() == 1)
        press(opened, "Enter")
        wait_until(opened, lambda: frame.locator(".picker-value").first.inner_text() == "pretrained-base/dropout")
        assert frame.evaluate("document.activeElement.getAttribute('aria-haspopup')") == "listbox"
        press(opened, "Enter", "Escape")
        wait_until(opened, lambda: frame.locator(".option").count() == 0)
        tab_to(opened, ".toolbar .menu > summary")
        press(opened, "Enter")
        wait_until(opened, lambda: frame.locator(".toolbar .menu[open]").count() == 1)
        press(opened, "Escape")
        wait_until(opened, lambda: frame.locator(".toolbar .menu[open]").count() == 0)
        assert frame.evaluate("document.activeElement.tagName") == "SUMMARY"
        assert opened.complaints == []


def test_charts_and_the_heatmap(browser: Any, stories: Server) -> None:
    with tab(browser, stories) as opened:
        frame = open_run(opened, RUN, layer=3)
        losses = panel(frame, "Paired losses")
        line = losses.locator(".legend button").first
        line.wait_for()
        losses.locator(".chart").focus()
        press(opened, "ArrowLeft", "ArrowLeft")
        # The crosshair stays where it is when charts are drawn again.
        line.evaluate("button => button.click()")
        wait_until(opened, lambda: line.get_attribute("aria-pressed") == "false")
        press(opened, "Enter")
        wait_until(opened, lambda: "p.bn_lens.step=" in opened.page.url)
        panel(frame, HEATMAP).locator(".heat").focus()
        press(opened, "ArrowDown")
        wait_until(opened, lambda: "p.bn_lens.layer=4" in opened.page.url)
        readout = panel(frame, HEATMAP).locator(".readout")
        assert readout.inner_text().startswith("block_2_expand_bn")
        before = readout.inner_text()
        press(opened, "ArrowLeft", "ArrowLeft")
        wait_until(opened, lambda: readout.inner_text() != before)
        pinned = opened.page.url
        press(opened, "Enter")
        wait_until(opened, lambda: "p.bn_lens.step=" in opened.page.url and opened.page.url != pinned)
        assert verdict(opened)
