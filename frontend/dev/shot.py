"""Screenshots of the tab against dev/server.py: ``python frontend/dev/shot.py OUT_DIR [names]``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

URL = "http://localhost:7007"
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGS += ["--disable-component-update", "--disable-sync"]


AXE = Path(__file__).resolve().parents[1] / "node_modules/axe-core/axe.min.js"


def audit(tab: Any) -> list[str]:
    """What axe calls serious or worse."""
    tab.evaluate(AXE.read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run(document, {resultTypes: ['violations']}).then((r) => r.violations)")
    grave = [v for v in found if v["impact"] in ("serious", "critical")]
    return [f"{v['id']}: {v['help']}: {[n['html'][:160] for n in v['nodes'][:3]]}" for v in grave]


def choose_finding(tab: Any) -> None:
    tab.get_by_role("button", name="Show in all views").first.click()


def compare(tab: Any) -> None:
    tab.get_by_role("button", name="Compare").click()
    tab.get_by_role("option").nth(0).click()
    tab.get_by_role("option").nth(1).click()
    tab.keyboard_escape()


def pick_run(name: str) -> Callable[[Any], None]:
    def act(tab: Any) -> None:
        tab.get_by_role("button", name="Run").first.click()
        tab.locator(".option", has=tab.get_by_text(name, exact=True)).click()

    return act


def open_picker(tab: Any) -> None:
    tab.get_by_role("button", name="Run").first.click()


def scroll_to_detail(tab: Any) -> None:
    tab.locator(".row.layers").scroll_into_view_if_needed()


def relative_smooth(tab: Any) -> None:
    tab.get_by_role("button", name="relative").click()
    tab.locator(".smoothing input").fill("0.8")


def open_folds(tab: Any) -> None:
    for fold in tab.locator(".fold summary").all():
        fold.click()


STATES: dict[str, tuple[str, int, Callable[[Any], None] | None]] = {
    "light": ("/", 1280, None),
    "dark": ("/?dark", 1280, None),
    "narrow": ("/", 800, None),
    "finding": ("/", 1280, choose_finding),
    "finding-dark": ("/?dark", 1280, choose_finding),
    "compare": ("/", 1280, compare),
    "picker": ("/", 1280, open_picker),
    "healthy": ("/", 1280, pick_run("band/0.9")),
    "deep": ("/", 1280, pick_run("deep/200 layers")),
    "hostile": ("/", 800, pick_run("<b>hostile</b> & 'run'")),
    "relative": ("/?dark", 1280, relative_smooth),
    "folds": ("/", 1280, open_folds),
    "empty": ("/?empty", 1280, None),
    "broken": ("/?broken", 1280, None),
}


def main(out: Path, names: list[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path="/usr/bin/chromium", args=ARGS)
        for name in names or STATES:
            path, width, act = STATES[name]
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.on("console", lambda m: print("console", m.type, m.text))
            page.on("pageerror", lambda e: print("pageerror", e))
            page.goto(URL + path)
            tab = page.frames[1]
            tab.keyboard_escape = lambda page=page: page.keyboard.press("Escape")
            page.wait_for_timeout(1200)
            if act:
                act(tab)
                page.wait_for_timeout(1200)
            size = "[document.documentElement.scrollWidth, innerWidth, document.documentElement.scrollHeight]"
            wide, inner, high = tab.evaluate(size)
            print(name, "no horizontal scroll" if wide <= inner else f"SCROLLS: {wide} > {inner}", high)
            page.set_viewport_size({"width": width, "height": min(high + 4, 3600)})
            page.wait_for_timeout(500)
            page.screenshot(path=out / f"{name}.png")
            for violation in audit(tab):
                print("  axe", violation)
            page.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
