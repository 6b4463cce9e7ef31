"""A training writes while its reader reads."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.page import open_run
from tests.conftest import ROOT, wait_for
from tests.host.browser import Tab, tab
from tests.host.server import Server, tensorboard
from tests.host.test_browser import wait_until

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def training(browser: Any, tmp_path_factory: pytest.TempPathFactory, viewer_python: str) -> Iterator[Server]:
    """A TensorBoard on a training that continues in another process."""
    directory = tmp_path_factory.mktemp("live")
    log = (directory / "log").open("wb")
    command = [sys.executable, "-m", "tests.browser.trainings", str(directory / "logs" / "now")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    try:
        with tensorboard(directory / "logs", "--reload_interval=1", python=viewer_python) as server:
            wait_for(lambda: process.poll() is not None or server.run_names() == ["now"], "the first record", 120)
            assert process.poll() is None, (directory / "log").read_text()
            yield server
    finally:
        process.kill()
        process.wait()
        log.close()


def step(opened: Tab) -> int:
    """Where the losses were last probed, as the page says it; 0 before that."""
    title = opened.frame.locator(".chain-title").first
    found = re.search(r", step ([\d,]+)", title.inner_text() if title.count() else "")
    return int(found[1].replace(",", "")) if found else 0


def test_focus_selection_and_scroll_stay_while_a_training_writes(browser: Any, training: Server) -> None:
    with tab(browser, training, height=600) as opened:
        frame = open_run(opened, "now", layer=2)
        wait_until(opened, lambda: step(opened) > 0, seconds=60)
        summary = frame.locator(".fold summary").last
        summary.click()
        search = frame.get_by_label("Filter layers by a regular expression")
        search.fill("block_[23]")
        frame.evaluate(
            "() => { const text = document.querySelector('.grid-row.chosen .name').firstElementChild;"
            " getSelection().selectAllChildren(text);"
            " document.querySelector('input.search').focus({preventScroll: true});"
            " document.querySelector('input.search').setSelectionRange(2, 5);"
            " document.querySelector('.layer-panel').scrollIntoView() }"
        )
        opened.page.wait_for_timeout(300)
        state = (
            "() => { const e = document.activeElement; return [e.className, e.value, e.selectionStart, e.selectionEnd,"
            " Math.round(e.getBoundingClientRect().top / 4), document.querySelector('.grid').scrollTop,"
            " document.querySelectorAll('.fold[open]').length,"
            " document.querySelectorAll('.grid-row').length] }"
        )
        before, shown = frame.evaluate(state), step(opened)
        assert before[0].startswith("search") and before[1:4] == ["block_[23]", 2, 5]
        wait_until(opened, lambda: step(opened) > shown, seconds=60)
        shown = step(opened)
        wait_until(opened, lambda: step(opened) > shown, seconds=60)
        assert frame.evaluate(state) == before
        # A reload of TensorBoard may end requests.
        assert [text for text in opened.complaints if "ERR_ABORTED" not in text] == []


def test_live_can_be_turned_off_and_reload_reads_at_once(browser: Any, training: Server) -> None:
    with tab(browser, training) as opened:
        frame = open_run(opened, "now")
        wait_until(opened, lambda: step(opened) > 0, seconds=60)
        live = frame.get_by_role("button", name="Live")
        live.click()
        wait_until(opened, lambda: live.get_attribute("aria-pressed") == "false")
        opened.page.wait_for_timeout(500)
        shown = step(opened)
        wait_for(lambda: training.plugin("overview", run="now").json["losses"]["step"] > shown, "a newer probe")
        assert step(opened) == shown
        frame.get_by_role("button", name="Reload").click()
        wait_until(opened, lambda: step(opened) > shown)
