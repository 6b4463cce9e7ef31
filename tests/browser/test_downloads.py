"""What leaves the page: the copied fix, and files with the numbers that the routes gave."""

from __future__ import annotations

import csv
import io
import json
import struct
from typing import Any

import pytest

from tb_bnlens.report.shown import counts
from tests.browser.page import HEATMAP, download, open_run, panel, settle
from tests.host.browser import tab
from tests.host.server import Server
from tests.host.test_browser import wait_until

pytestmark = pytest.mark.browser

RUN = "band-locator/momentum-0.999"
FILE = "band-locator_momentum-0.999"


def fix(server: Server) -> str:
    findings = server.plugin("overview", run=RUN).json["findings"]
    return str(next(f["fix"] for f in findings if f["rule"] == "momentum-too-high"))


def table(text: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text.decode(), newline="")))


def numbers(cells: list[str]) -> list[float | None]:
    return [float(cell) if cell else None for cell in cells]


@pytest.mark.parametrize("allowed", [True, False], ids=["clipboard", "no-clipboard"])
def test_the_copy_button_copies_the_very_text(browser: Any, stories: Server, allowed: bool) -> None:
    with tab(browser, stories) as opened:
        opened.page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=stories.url)
        frame = open_run(opened, RUN)
        if not allowed:
            frame.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('denied')) }")
        frame.get_by_role("button", name="Copy fix:").click()
        frame.get_by_text("Copied").wait_for()
        assert opened.page.evaluate("navigator.clipboard.readText()") == fix(stories).rstrip()


def test_losses_as_csv_and_json(browser: Any, stories: Server) -> None:
    losses = stories.plugin("losses", run=RUN).frame
    with tab(browser, stories) as opened:
        scope = panel(open_run(opened, RUN), "Paired losses")
        name, content = download(opened, scope, "Export", "CSV")
        other, text = download(opened, scope, "Export", "JSON")
        assert opened.complaints == []
    assert (name, other) == (f"{FILE}-losses.csv", f"{FILE}-losses.json")
    header, *rows = table(content)
    assert header[0] == "step"
    for kind, label in (("batch", "batch statistics"), ("inference", "inference")):
        drawn = {float(row[0]): float(row[header.index(label)]) for row in rows if row[header.index(label)]}
        assert list(drawn) == losses["steps"].tolist()
        assert list(drawn.values()) == pytest.approx(losses[f"train/{kind}"].tolist(), rel=1e-6)
    records = json.loads(text)
    assert [list(record) for record in records] == [header] * len(rows)
    assert [list(record.values()) for record in records] == [numbers(row) for row in rows]


def test_layers_and_heatmap_as_csv(browser: Any, stories: Server) -> None:
    layers = stories.plugin("overview", run=RUN).json["layers"]
    series = stories.plugin("series", run=RUN, row="distance_rms").frame
    with tab(browser, stories) as opened:
        frame = open_run(opened, RUN)
        _, content = download(opened, panel(frame, "Layers"), "Export", "CSV")
        heat_name, heat = download(opened, panel(frame, HEATMAP), "Export", "CSV")
        panel(frame, HEATMAP).get_by_role("button", name="variance ratio").click()
        wait_until(opened, lambda: "p.bn_lens.row=variance_ratio" in opened.page.url)
        settle(opened)
        ratio_name, ratios = download(opened, panel(frame, HEATMAP), "Export", "CSV")
    header, *rows = table(content)
    for key, column in (("name", "name"), ("distance", "distance_sd"), ("attribution", "attribution_loss")):
        cells = [row[header.index(column)] for row in rows]
        wanted = [layer[key] for layer in layers]
        assert (cells if key == "name" else numbers(cells)) == wanted
    assert heat_name == f"{FILE}-distance_rms.csv"
    head, *records = table(heat)
    assert head == ["step", *(layer["name"] for layer in layers)]
    assert [numbers(row)[1:] for row in records] == [pytest.approx(row) for row in series["values"].tolist()]
    assert ratio_name == f"{FILE}-variance_ratio.csv"
    wanted = stories.plugin("series", run=RUN, row="variance_ratio").frame["values"].tolist()
    assert [numbers(row)[1:] for row in table(ratios)[1:]] == [pytest.approx(row) for row in wanted]


@pytest.mark.parametrize("title", ["Paired losses", HEATMAP, "Momentum, replayed"])
def test_a_chart_as_a_picture(browser: Any, stories: Server, title: str) -> None:
    with tab(browser, stories) as opened:
        scope = panel(open_run(opened, RUN), title)
        name, content = download(opened, scope, "Export", "PNG picture")
        wide = scope.locator("canvas").first.evaluate("e => e.width")
    assert name.endswith(".png")
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert width == wide and height > 100
    assert len(content) > 5_000


def test_the_numbers_of_a_chart_as_a_table(browser: Any, stories: Server) -> None:
    with tab(browser, stories) as opened:
        scope = panel(open_run(opened, RUN), "Paired losses")
        scope.locator("details.menu summary").click()
        scope.get_by_role("button", name="Show as table").click()
        steps = stories.plugin("losses", run=RUN).frame["steps"]
        assert scope.locator("table tbody tr").count() >= len(steps)


def test_the_report_the_findings_and_the_fixes(browser: Any, stories: Server) -> None:
    overview = stories.plugin("overview", run=RUN).json
    with tab(browser, stories) as opened:
        toolbar = open_run(opened, RUN).locator(".toolbar")
        report_name, report = download(opened, toolbar, "Download", "Report (JSON)")
        _, findings = download(opened, toolbar, "Download", "Findings (JSON)")
        fix_name, fixes = download(opened, toolbar, "Download", "Fixes (Python)")
    assert report_name == f"{FILE}-report.json"
    assert json.loads(report) == overview
    assert json.loads(findings) == [f for f in overview["findings"] if counts(f)]
    assert fix_name == f"{FILE}-fix.py"
    assert fix(stories).encode() in fixes
    compile(fixes, fix_name, "exec")
