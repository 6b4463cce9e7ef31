"""The tab saved as one file: it opens from disk, asks for nothing, and works."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from tb_bnlens.cli import OK, main
from tests.fixtures.runs import write_run

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    write_run(folder / "logs" / "slow", momentum=0.999, steps=40)
    write_run(folder / "logs" / "fast & <b>bold</b>", momentum=0.9, steps=40)
    assert main(["report", str(folder / "logs"), "--html", str(folder / "report.html")]) == OK
    return folder / "report.html"


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 800)])
def test_it_works_offline(browser: Any, file: Path, theme: str, width: int, screenshots: Path, axe: str) -> None:
    context = browser.new_context(color_scheme=theme, viewport={"width": width, "height": 900}, offline=True)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    page.get_by_role("button", name="slow", exact=True).click()
    page.locator("section.verdict").wait_for()
    page.locator(".loss-panel").scroll_into_view_if_needed()  # a chart is drawn when it comes into view
    page.locator(".loss-panel .u-over").wait_for()
    page.locator(".layer-charts .chart").first.wait_for()
    page.locator(".toolbar .saved").wait_for()
    page.evaluate("document.scrollingElement.scrollTop = 0")
    screenshots.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=screenshots / f"saved-{theme}-{width}.png")
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then((r) => r.violations)")
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
    page.go_back()
    page.get_by_role("button", name="fast & <b>bold</b>", exact=True).wait_for()
    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "blob:", "data:"))] == []
    context.close()


def test_names_stand_beside_each_other_on_a_phone(browser: Any, file: Path) -> None:
    page = browser.new_page(viewport={"width": 420, "height": 900}, offline=True)
    page.goto(file.as_uri())
    page.get_by_role("button", name="slow", exact=True).click()
    names = page.locator(".modes thead th .term")
    names.first.wait_for()
    boxes = [name.bounding_box() for name in names.all()]
    assert all(a["x"] + a["width"] <= b["x"] for a, b in itertools.pairwise(boxes))
    page.locator(".segmented").last.wait_for()
    wide, seen = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= seen
    page.close()


def test_a_comparison_opens_as_one(browser: Any, file: Path) -> None:
    compared = file.with_name("compared.html")
    options = ["--compare", "slow", "fast & <b>bold</b>", "--html", str(compared)]
    assert main(["report", str(file.with_name("logs")), *options]) == OK
    page = browser.new_page(offline=True)
    page.goto(compared.as_uri())
    page.get_by_role("region", name="Runs side by side").get_by_title("Show fast & <b>bold</b>").wait_for()
    assert page.locator(".picker-value").first.inner_text() == "slow"
    page.close()
