"""Several runs side by side, and names that try to be something else than text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.page import assert_accessible, assert_no_sideways_scroll, download, link, open_run, panel, picture
from tests.conftest import wait_for
from tests.fixtures.runs import write_run
from tests.host.browser import tab
from tests.host.server import Server, tensorboard
from tests.host.test_browser import verdict, wait_until

pytestmark = pytest.mark.browser

FAULTY, HEALTHY = "band-locator/momentum-0.999", "band-locator/momentum-0.9"
HOSTILE = [
    "<img src=x onerror=\"console.error('/data/plugin/bn_lens/ owned')\">",
    "\"double\" & 'single' &amp; `tick` ${x}",
    "слой/нормализация/批量归一化/طبقة",
    "very_long_name_" + "x" * 400,
    '=HYPERLINK("http://example.invalid","click")',
    "</script><script>document.title='owned'</script>",
]
RUNS = ["<b>bold</b> & 'quoted'", "прогон 第一次 تشغيل", "long-" + "y" * 180]


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 800)])
def test_two_runs_compared(browser: Any, stories: Server, theme: str, width: int, screenshots: Path, axe: str) -> None:
    with tab(browser, stories, theme=theme, width=width) as opened:
        frame = open_run(opened, FAULTY)
        frame.get_by_role("button", name="Compare").click()
        frame.locator(".option").filter(has_text=HEALTHY).first.click()
        picture(opened, screenshots, f"compare-picker-{theme}-{width}", tallest=800)
        assert_no_sideways_scroll(opened)
        opened.page.keyboard.press("Escape")
        wait_until(opened, lambda: frame.locator(".option").count() == 0)
        table = panel(frame, "Runs side by side")
        for run in (FAULTY, HEALTHY):
            overview = stories.plugin("overview", run=run).json
            table.get_by_text(overview["verdict"], exact=True).wait_for()
        legend = panel(frame, "Paired losses").inner_text()
        assert f"{FAULTY} · inference" in legend and f"{HEALTHY} · inference" in legend
        wait_until(opened, lambda: opened.page.url.endswith(link(FAULTY, compare=HEALTHY)))
        assert_no_sideways_scroll(opened)
        assert_accessible(opened, axe)
        picture(opened, screenshots, f"compare-{theme}-{width}")
        opened.page.reload()
        panel(opened.frame, "Runs side by side").get_by_title(f"Show {HEALTHY}").click()
        assert verdict(opened) == stories.plugin("overview", run=HEALTHY).json["verdict"]
        assert opened.complaints == []


@pytest.fixture(scope="module")
def hostile(browser: Any, tmp_path_factory: pytest.TempPathFactory, viewer_python: str) -> Iterator[Server]:
    """Runs of hostile names, each with layers of hostile names."""
    logdir = tmp_path_factory.mktemp("hostile")
    for run in RUNS:
        file = write_run(logdir / run, layers=len(HOSTILE), steps=10)
        layers = [{"name": name, "channels": 4 * (i + 1), "momentum": 0.999} for i, name in enumerate(HOSTILE)]
        file.manifest({"layers": layers, "planned_steps": 10, "notes": HOSTILE, "format": 1}, 10)
    with tensorboard(logdir, python=viewer_python) as server:
        wait_for(lambda: sorted(server.run_names()) == sorted(RUNS), "all runs")
        yield server


@pytest.mark.parametrize(
    ("run", "theme", "width"), [(RUNS[0], "light", 1280), (RUNS[1], "dark", 800), (RUNS[2], "light", 800)]
)
def test_hostile_names_are_text(
    browser: Any, hostile: Server, run: str, theme: str, width: int, screenshots: Path, axe: str
) -> None:
    with tab(browser, hostile, theme=theme, width=width) as opened:
        frame = open_run(opened, run, **{"compare": next(other for other in RUNS if other != run)})
        assert frame.locator(".picker-value").first.inner_text() == run
        for i, name in enumerate(HOSTILE):
            frame.locator(f"#layer-row-{i}").click()
            wait_until(opened, lambda name=name: frame.locator(".detail-panel h2").inner_text() == name)
        frame.locator(".picker button").first.click()
        for other in RUNS:
            frame.locator(".option").get_by_text(other, exact=True).wait_for()
        opened.page.keyboard.press("Escape")
        assert frame.locator("img, b b, main script").count() == 0
        assert frame.evaluate("document.title + parent.document.title").count("owned") == 0
        assert_no_sideways_scroll(opened)
        assert_accessible(opened, axe)
        picture(opened, screenshots, f"hostile-{RUNS.index(run)}-{theme}-{width}")
        name, content = download(opened, panel(frame, "Layers"), "Export", "CSV")
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
        assert len(name) <= 120 and name.endswith("-layers.csv")
        # A spreadsheet does not run it.
        assert b"\"'=HYPERLINK" in content
        assert opened.complaints == []
