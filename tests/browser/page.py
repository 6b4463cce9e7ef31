"""What the tests of the tab look at: its address, its size, its names and roles, its files."""

from __future__ import annotations

import contextlib
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.host.browser import Tab

AXE = ROOT / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
TALLEST = 3200


def link(run: str, **chosen: object) -> str:
    """The fragment that opens a run with what is chosen in it."""
    pairs = [("run", run), *chosen.items()]
    return "&".join(["bn_lens", *(f"p.bn_lens.{key}={urllib.parse.quote(str(value), '')}" for key, value in pairs)])


def open_run(opened: Tab, run: str, **chosen: object) -> Any:
    """The tab with a run, drawn to the end."""
    frame = opened.open(link(run, **chosen))
    settle(opened)
    return frame


def settle(opened: Tab) -> None:
    """Until nothing is being read any more and the charts are painted."""
    opened.frame.locator("section.verdict, .page-state").first.wait_for()
    opened.page.wait_for_function("true")
    opened.frame.locator(".chart-wait, .page-state:has(.skeleton)").first.wait_for(state="detached")
    opened.page.wait_for_timeout(250)


def assert_no_sideways_scroll(opened: Tab) -> None:
    """Neither the page nor the tab in it is wider than what is seen of it."""
    for frame in (opened.page.main_frame, opened.frame):
        wide, seen = frame.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= seen, f"{frame.url} is {wide} px wide in {seen} px"


def assert_accessible(opened: Tab, axe: str) -> None:
    """axe finds nothing serious in the tab."""
    opened.frame.evaluate(axe)
    found = opened.frame.evaluate("axe.run(document, {resultTypes: ['violations']}).then((r) => r.violations)")
    grave = [v for v in found if v["impact"] in ("serious", "critical")]
    assert not grave, "\n".join(f"{v['id']}: {v['help']}: {[n['html'][:200] for n in v['nodes'][:3]]}" for v in grave)


def picture(opened: Tab, directory: Path, name: str, tallest: int = TALLEST) -> Path:
    """The tab from top to bottom, as a PNG."""
    size = opened.page.viewport_size
    # Neither a tooltip nor the place that was scrolled to.
    opened.page.mouse.move(0, 0)
    opened.frame.evaluate("document.scrollingElement.scrollTop = 0")
    high = opened.frame.evaluate("document.documentElement.scrollHeight")
    around = opened.page.evaluate("innerHeight") - opened.frame.evaluate("innerHeight")
    opened.page.set_viewport_size({"width": size["width"], "height": min(high + around, tallest)})
    opened.page.wait_for_timeout(400)
    try:
        return opened.screenshot(directory, name)
    finally:
        opened.page.set_viewport_size(size)


@contextlib.contextmanager
def menu(scope: Any, name: str) -> Iterator[Any]:
    """An open menu: a chart's Export, or the run's Download."""
    box = scope.locator("details.menu").filter(has_text=name).first
    box.locator("summary").click()
    yield box


def download(opened: Tab, scope: Any, name: str, item: str) -> tuple[str, bytes]:
    """Choose an item of a menu; the name and the content of the file that comes."""
    with menu(scope, name) as box, opened.page.expect_download() as coming:
        box.get_by_role("button", name=item).click()
    file = coming.value
    return file.suggested_filename, Path(file.path()).read_bytes()


HEATMAP = "Layers \N{MULTIPLICATION SIGN} steps"


def panel(frame: Any, title: str) -> Any:
    """A section of the page by its title."""
    return frame.get_by_role("region", name=title, exact=True)
