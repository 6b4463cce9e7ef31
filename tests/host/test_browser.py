"""The tab in Chromium, inside TensorBoard's own page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import wait_for
from tests.fixtures.event_files import EventFile
from tests.fixtures.runs import extend_run, manifest, write_run
from tests.host.browser import Tab, tab
from tests.host.conftest import NAMES
from tests.host.server import Server, tensorboard

pytestmark = pytest.mark.browser

FIRST = f"bn_lens&p.bn_lens.run={NAMES[0]}"
"""Opens a run: of several the tab shows a table."""


def verdict(opened: Tab) -> str:
    heading = opened.frame.locator("h1")
    heading.wait_for()
    return str(heading.inner_text())


def background(opened: Tab) -> int:
    """Lightness of what is painted behind the tab, 0 to 255."""
    colour = opened.frame.evaluate(
        "(() => { for (const e of [document.querySelector('#bn-lens'), document.body, document.documentElement]) {"
        " const c = e && getComputedStyle(e).backgroundColor; if (c && !/, 0\\)$|transparent/.test(c)) return c; }"
        " return 'rgb(255, 255, 255)'; })()"
    )
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) // 3


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_verdict_in_both_themes(browser: Any, viewer: Server, theme: str, screenshots: Path) -> None:
    with tab(browser, viewer, theme=theme) as opened:
        opened.open(FIRST)
        shown = verdict(opened)
        assert shown == viewer.plugin("overview", run=NAMES[0]).json["verdict"]
        assert (background(opened) < 100) == (theme == "dark")
        opened.screenshot(screenshots, f"tab-{theme}")
        assert opened.complaints == []


def test_following_the_theme_switch(browser: Any, viewer: Server) -> None:
    with tab(browser, viewer) as opened:
        opened.open(FIRST)
        verdict(opened)
        opened.page.evaluate("document.body.classList.add('dark-mode')")
        wait_until(opened, lambda: background(opened) < 100)
        opened.page.evaluate("document.body.classList.remove('dark-mode')")
        wait_until(opened, lambda: background(opened) > 200)


def test_a_deep_link_opens_its_run_and_the_address_follows(browser: Any, viewer: Server) -> None:
    with tab(browser, viewer) as opened:
        opened.open("bn_lens&p.bn_lens.run=sweep%2Fa%20b")
        assert verdict(opened) == viewer.plugin("overview", run=NAMES[1]).json["verdict"]
    with tab(browser, viewer) as opened:
        opened.open().get_by_role("button", name="exp1").click()
        verdict(opened)
        wait_until(opened, lambda: "p.bn_lens.run=exp1" in opened.page.url)


def test_the_host_s_reload_button_reads_everything_again(browser: Any, viewer: Server) -> None:
    with tab(browser, viewer) as opened:
        frame = opened.open(FIRST)
        verdict(opened)
        # Polling would ask too.
        frame.get_by_role("button", name="Live").click()
        opened.page.wait_for_timeout(1000)
        asked: list[str] = []
        opened.page.on("request", lambda request: asked.append(request.url.rpartition("/")[2].partition("?")[0]))
        opened.page.locator(".reload-button").click()
        wait_until(opened, lambda: {"runs", "overview", "losses", "series", "layer", "channels"} <= set(asked))
        # TensorBoard may put a new iframe in place of the old one, whose requests end there.
        assert [text for text in opened.complaints if "ERR_ABORTED" not in text] == []


def test_every_layer_is_listed(browser: Any, viewer: Server) -> None:
    with tab(browser, viewer) as opened:
        opened.open(FIRST)
        verdict(opened)
        for name in ("block_0/bn", "block_1/bn", "block_2/bn"):
            opened.frame.get_by_text(name).first.wait_for(state="attached")
        assert opened.complaints == []


def test_under_a_path_prefix(browser: Any, logdir: Path, viewer_python: str) -> None:
    with tensorboard(logdir, "--path_prefix=/a/b", python=viewer_python) as server:
        if not server.url.endswith("/a/b"):
            server.url += "/a/b"
        wait_for(lambda: len(server.run_names()) == 2, "both runs")
        with tab(browser, server) as opened:
            opened.open(FIRST)
            assert "Inference" in verdict(opened)
            assert opened.complaints == []


def test_a_logdir_without_our_data(browser: Any, tmp_path: Path, viewer_python: str, screenshots: Path) -> None:
    EventFile(tmp_path / "exp").tensor("accuracy", 0.5, 1, plugin="scalars")
    with tensorboard(tmp_path, python=viewer_python) as server, tab(browser, server) as opened:
        frame = opened.open()
        frame.get_by_text("BNLens(").first.wait_for()
        opened.screenshot(screenshots, "empty")
        assert opened.complaints == []


def test_live_growth_keeps_the_scroll_position(browser: Any, tmp_path: Path, viewer_python: str) -> None:
    file = write_run(tmp_path / "exp", steps=10)
    with tensorboard(tmp_path, "--reload_interval=1", python=viewer_python) as server:
        wait_for(lambda: server.run_names() == ["exp"], "the run")
        said = server.log
        with tab(browser, server, height=500) as opened:
            opened.open()
            assert "step 10" in verdict(opened)
            opened.frame.locator("h1").evaluate("element => { element.dataset.same = 'yes' }")
            scroller = "(document.scrollingElement ?? document.body)"
            opened.frame.evaluate(f"{scroller}.scrollTop = 120")
            extend_run(file, first_step=11, steps=20)
            wait_until(opened, lambda: "step 30" in verdict(opened), seconds=30)
            assert opened.frame.evaluate(f"{scroller}.scrollTop") == 120
            assert opened.frame.locator("h1").get_attribute("data-same") == "yes"
            assert opened.complaints == []
        assert server.log == said, "a tab that polls writes nothing to TensorBoard's console"


def test_names_are_text(browser: Any, tmp_path: Path, viewer_python: str) -> None:
    hostile = "<img src=x onerror=\"console.error('/data/plugin/bn_lens/ owned')\">"
    file = write_run(tmp_path / "a'<b>\"&", steps=10)
    text = manifest(layers=3)
    layers = [{"name": f"{hostile}{i}", "channels": 4, "momentum": 0.999} for i in range(3)]
    file.manifest({"layers": layers, "planned_steps": text.planned_steps, "notes": [hostile], "format": 1}, 10)
    with tensorboard(tmp_path, python=viewer_python) as server:
        wait_for(lambda: len(server.run_names()) == 1, "the run")
        with tab(browser, server) as opened:
            frame = opened.open()
            verdict(opened)
            frame.get_by_text(f"{hostile}1").first.wait_for(state="attached")
            assert frame.locator("img").count() == 0
            assert opened.complaints == []


def test_an_undecodable_run_says_so(browser: Any, tmp_path: Path, viewer_python: str) -> None:
    EventFile(tmp_path / "exp" / "bn_lens").manifest("{", 0)
    with tensorboard(tmp_path, python=viewer_python) as server:
        wait_for(lambda: len(server.run_names()) == 1, "the run")
        with tab(browser, server) as opened:
            frame = opened.open()
            frame.get_by_text("could not be used").first.wait_for(state="attached")
            assert opened.complaints == []


def test_complaints_are_heard(browser: Any, viewer: Server) -> None:
    with tab(browser, viewer) as opened:
        frame = opened.open(FIRST)
        verdict(opened)
        frame.evaluate("fetch('overview?run=nothing')")
        frame.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))")
        frame.evaluate("setTimeout(() => { throw new Error('uncaught') })")
        for kind in ("status: 404", "CSP violation: img-src", "exception: uncaught"):
            wait_until(opened, lambda kind=kind: any(kind in complaint for complaint in opened.complaints))


def test_a_page_that_is_used_again_holds_nothing_of_the_last_test(browser: Any, viewer: Server) -> None:
    with tab(browser, viewer, width=900) as opened:
        opened.open(FIRST).evaluate("window.left = console.error('/data/plugin/bn_lens/ left') ?? 'left'")
        first = opened.page
        opened.page.route("**/overview*", lambda route: route.abort())
        wait_until(opened, lambda: opened.complaints)
    with tab(browser, viewer) as opened:
        frame = opened.open()
        assert opened.page is first, "TensorBoard is loaded once"
        assert frame.evaluate("[window.left, innerWidth]") == [None, 1280]
        frame.get_by_role("button", name="exp1").click()
        assert "Inference" in verdict(opened)
        assert opened.complaints == []


def wait_until(opened: Tab, condition: Any, seconds: float = 10.0) -> None:
    for _ in range(int(seconds * 10)):
        if condition():
            return
        opened.page.wait_for_timeout(100)
    pytest.fail(f"did not come within {seconds:.0f} s")
