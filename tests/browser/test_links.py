"""Deep links: the address can be reloaded and pasted, and works below a path prefix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser.page import HEATMAP, assert_no_sideways_scroll, link, open_run, panel, settle
from tests.conftest import wait_for
from tests.host.browser import Tab, tab
from tests.host.server import Server, tensorboard
from tests.host.test_browser import wait_until

pytestmark = pytest.mark.browser

RUN = "band-locator/momentum-0.999"
RULE = "momentum-too-high"


def chosen(opened: Tab) -> tuple[str, str, str | None, str]:
    """Run, finding, layer and step that the page shows."""
    settle(opened)
    frame = opened.frame
    return (
        frame.locator(".picker-value").first.inner_text(),
        ",".join(card.get_attribute("id") for card in frame.locator(".card.chosen").all()),
        frame.locator(".grid-row.chosen").first.get_attribute("id"),
        frame.locator("section[aria-label=Channels] h3 .muted").inner_text(),
    )


def test_a_link_survives_a_reload_and_can_be_pasted(browser: Any, stories: Server) -> None:
    at = stories.plugin("channels", run=RUN, layer=2).frame["steps"]
    early = int(at[len(at) // 2])
    with tab(browser, stories) as opened:
        open_run(opened, RUN, finding=RULE, layer=2, step=early)
        expected = (RUN, f"finding-{RULE}", "layer-row-2", f"at step {early}")
        assert chosen(opened) == expected
        opened.page.reload()
        assert chosen(opened) == expected
        assert opened.complaints == []
        address = opened.page.url
    with tab(browser, stories, fresh=True) as another:
        another.page.goto(address)
        assert chosen(another) == expected


def test_what_is_clicked_is_in_the_address(browser: Any, stories: Server) -> None:
    with tab(browser, stories) as opened:
        frame = open_run(opened, RUN)
        frame.get_by_role("button", name="Highlight").click()
        frame.locator("#layer-row-1").click()
        panel(frame, HEATMAP).get_by_role("button", name="mean error").click()
        frame.get_by_role("button", name="relative").click()
        wanted = link(RUN, finding=RULE, layer=1, x="relative", row="mean_error_p95")
        wait_until(opened, lambda: opened.page.url.endswith(f"#{wanted}"))
        opened.page.reload()
        assert chosen(opened)[1:3] == (f"finding-{RULE}", "layer-row-1")
        assert opened.frame.get_by_role("button", name="relative").get_attribute("aria-pressed") == "true"
        assert opened.complaints == []


def test_pasting_into_an_open_tab_replaces_what_was_chosen(browser: Any, stories: Server) -> None:
    with tab(browser, stories) as opened:
        open_run(opened, RUN, finding=RULE, layer=2)
        opened.page.evaluate("hash => { location.hash = hash }", link("pretrained-base/dropout", layer=1))
        wait_until(opened, lambda: chosen(opened)[:3] == ("pretrained-base/dropout", "", "layer-row-1"))


def test_a_click_in_the_heatmap_opens_its_layer_at_its_step(browser: Any, stories: Server) -> None:
    with tab(browser, stories) as opened:
        frame = open_run(opened, RUN)
        heat = frame.locator(".heat")
        box = heat.bounding_box()
        heat.click(position={"x": box["width"] / 2, "y": 8})
        wait_until(opened, lambda: "p.bn_lens.layer=0" in opened.page.url and "p.bn_lens.step=" in opened.page.url)
        assert chosen(opened)[2] == "layer-row-0"


def test_a_link_below_a_path_prefix(browser: Any, trained: Path, viewer_python: str) -> None:
    with tensorboard(trained, "--path_prefix=/team/x", python=viewer_python) as server:
        server.url = server.url.removesuffix("/team/x") + "/team/x"
        wait_for(lambda: RUN in server.run_names(), "the run")
        with tab(browser, server, width=800) as opened:
            open_run(opened, RUN, finding=RULE, layer=2)
            assert chosen(opened)[:3] == (RUN, f"finding-{RULE}", "layer-row-2")
            opened.page.reload()
            assert chosen(opened)[:3] == (RUN, f"finding-{RULE}", "layer-row-2")
            assert "/team/x/" in opened.page.url
            assert_no_sideways_scroll(opened)
            assert opened.complaints == []


def test_a_chart_below_the_fold_is_made_when_it_comes_near(browser: Any, stories: Server) -> None:
    with tab(browser, stories) as opened:
        frame = open_run(opened, RUN)
        charts = frame.locator(".layer-charts .chart")
        assert charts.count() == 3 and charts.locator("canvas").count() == 0
        charts.first.scroll_into_view_if_needed()
        charts.first.locator("canvas").wait_for()
        assert opened.complaints == []
