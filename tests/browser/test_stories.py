"""Every story as its reader meets it: the verdict, the finding, the layers that it names, in both themes and widths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.page import assert_accessible, assert_no_sideways_scroll, open_run, picture
from tests.conftest import wait_for
from tests.host.browser import Tab, tab
from tests.host.server import Server, tensorboard
from tests.host.test_browser import verdict

pytestmark = pytest.mark.browser

FINDINGS = {
    "band-locator/momentum-0.999": ("momentum-too-high", "error"),
    "band-locator/momentum-0.9": (None, None),
    "pose-network/rate-0.03": ("drift", "error"),
    "pretrained-base/frozen": ("frozen-mismatch", "error"),
    "pretrained-base/dropout": ("dropout-gap", "note"),
    "pretrained-base/before-the-update": ("before-after-update", "note"),
    "frozen-base/harmful": ("frozen-mismatch", "error"),
}
LONG_FINDINGS = {
    "band-locator/momentum-0.999": ("momentum-too-high", "error"),
    "band-locator/momentum-0.9": (None, None),
    "pose-network/rate-0.03": ("drift", "error"),
    "pose-network/rate-0.03-then-0.0001": (None, None),
    "frozen-base/harmless": ("frozen-mismatch", "note"),
}
SIZES = {"light": 1280, "dark": 800}
# Where the page differs: many layers, few, and none.
DARK = ("pose-network/rate-0.03", "pretrained-base/frozen", "pretrained-base/before-the-update")


def shows(opened: Tab, server: Server, run: str, rule: str | None, severity: str | None) -> None:
    """The page says what the analysis says, and the finding lights up its layers."""
    overview = server.plugin("overview", run=run).json
    frame = open_run(opened, run)
    assert verdict(opened) == overview["verdict"]
    if rule is None:
        assert_nothing_grave(frame, overview)
        return
    finding = next(f for f in overview["findings"] if f["rule"] == rule)
    card = frame.locator(f"#finding-{rule}")
    assert card.get_attribute("open") is not None
    assert card.locator(".badge").inner_text() == severity
    assert card.locator("h3").inner_text() == finding["title"]
    assert finding["summary"] in card.inner_text()
    assert_code(frame, card, finding, note=severity == "note")
    assert_evidence(card, finding)
    assert_highlight(frame, card, overview, finding)


def assert_nothing_grave(frame: Any, overview: Any) -> None:
    assert frame.locator("section.findings .card.error, section.findings .card.warning").count() == 0
    grave = [f for f in overview["findings"] if f["status"] == "fail" and f["severity"] in ("error", "warning")]
    assert not [f for f in grave if not f["explained_by"] and not f["silenced"]]


def assert_code(frame: Any, card: Any, finding: Any, note: bool) -> None:
    """The code of the worst finding stands beside the verdict, and only there; a note keeps its own."""
    code = [finding[key].rstrip() for key in ("rescue", "fix") if finding[key]]
    blocks = (card if note else frame.locator("section.verdict .actions")).locator("pre").all()
    assert [block.inner_text().rstrip() for block in blocks] == code
    assert card.locator("pre").count() == (len(code) if note else 0)
    assert all(block.evaluate("e => e.scrollWidth <= e.clientWidth") for block in blocks)


def assert_evidence(card: Any, finding: Any) -> None:
    card.locator("details > summary").filter(has_text="Evidence").click()
    # Shown with a capital letter.
    table = card.locator(".evidence").inner_text().casefold()
    labels = [e["label"].casefold() for e in finding["evidence"].values() if e["value"] is not None]
    assert [label for label in labels if label not in table] == []


def assert_highlight(frame: Any, card: Any, overview: Any, finding: Any) -> None:
    card.get_by_role("button", name="Highlight").click()
    if not overview["layers"]:
        return
    lit, seen = (
        {row.get_attribute("id") for row in frame.locator(rows).all()} for rows in (".grid-row.lit", ".grid-row")
    )
    assert lit == seen & {f"layer-row-{index}" for index in finding["layer_indices"]}
    assert bool(lit) == bool(finding["layer_indices"])


@pytest.mark.parametrize(("run", "theme"), [*((run, "light") for run in FINDINGS), *((run, "dark") for run in DARK)])
def test_a_short_run(browser: Any, stories: Server, run: str, theme: str, screenshots: Path, axe: str) -> None:
    with tab(browser, stories, theme=theme, width=SIZES[theme]) as opened:
        shows(opened, stories, run, *FINDINGS[run])
        assert_no_sideways_scroll(opened)
        assert_accessible(opened, axe)
        picture(opened, screenshots, f"story-{run.replace('/', '-')}-{theme}-{SIZES[theme]}")
        assert opened.complaints == []


@pytest.fixture(scope="module")
def long_stories(browser: Any, tmp_path_factory: pytest.TempPathFactory, viewer_python: str) -> Iterator[Server]:
    from tests.browser.trainings import LONG

    logdir = tmp_path_factory.mktemp("long")
    for name, train in LONG.items():
        train(str(logdir / name))
    with tensorboard(logdir, python=viewer_python) as server:
        wait_for(lambda: len(server.run_names()) == len(LONG), "all runs")
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("run", LONG_FINDINGS)
def test_a_whole_run(browser: Any, long_stories: Server, run: str, screenshots: Path, axe: str) -> None:
    with tab(browser, long_stories) as opened:
        shows(opened, long_stories, run, *LONG_FINDINGS[run])
        assert_no_sideways_scroll(opened)
        assert_accessible(opened, axe)
        picture(opened, screenshots, f"whole-{run.replace('/', '-')}")
        assert opened.complaints == []
