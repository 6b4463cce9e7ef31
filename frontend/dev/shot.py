"""Screenshots of the tab against dev/server.py: ``python frontend/dev/shot.py OUT_DIR [names]``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runs import BROKEN, HOSTILE, LONG

URL = os.environ.get("BN_LENS_DEV", "http://localhost:7007")
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGS += ["--disable-component-update", "--disable-sync"]


AXE = Path(__file__).resolve().parents[1] / "node_modules/axe-core/axe.min.js"


def audit(tab: Any) -> list[str]:
    """What axe calls serious or worse."""
    tab.evaluate(AXE.read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run(document, {resultTypes: ['violations']}).then((r) => r.violations)")
    grave = [v for v in found if v["impact"] in ("serious", "critical")]
    return [f"{v['id']}: {v['help']}: {[n['html'][:160] for n in v['nodes'][:3]]}" for v in grave]


Act = Callable[[Any], None]


def run(name: str, act: Act | None = None) -> Act:
    """Open a run from the table of runs, then do something."""

    def opened(tab: Any) -> None:
        tab.get_by_role("button", name=name, exact=True).click()
        tab.locator("section.verdict").wait_for()
        tab.wait_for_timeout(900)
        if act:
            act(tab)

    return opened


def choose_finding(tab: Any) -> None:
    tab.get_by_role("button", name="Highlight").first.click()


def compare(tab: Any) -> None:
    tab.get_by_role("button", name="Compare").click()
    for other in (0, 1):
        tab.get_by_role("option").nth(other).click()
    tab.keyboard_escape()


def open_picker(tab: Any) -> None:
    tab.locator(".picker button").first.click()


def relative_smooth(tab: Any) -> None:
    tab.get_by_role("button", name="relative").click()
    tab.locator(".smoothing input").fill("0.8")


def open_details(tab: Any) -> None:
    for fold in tab.locator(".fold summary, .card details > summary").all():
        fold.click()


def hover_losses(tab: Any) -> None:
    tab.locator(".loss-panel .u-over").hover(position={"x": 300, "y": 60})


def pin_losses(tab: Any) -> None:
    tab.locator(".loss-panel .u-over").click(position={"x": 300, "y": 60})


STATES: dict[str, tuple[str, int, Act | None]] = {
    "runs": ("/", 1280, None),
    "runs-dark": ("/?dark", 1280, None),
    "runs-narrow": ("/", 800, None),
    "light": ("/?one", 1280, None),
    "dark": ("/?one&dark", 1280, None),
    "narrow": ("/?one", 800, None),
    "narrow-dark": ("/?one&dark", 800, None),
    "wide": ("/?one", 1920, None),
    "finding-dark": ("/?dark", 1280, run(BROKEN, choose_finding)),
    "compare": ("/", 1280, run(BROKEN, compare)),
    "picker": ("/", 1280, run(BROKEN, open_picker)),
    "healthy": ("/", 1280, run("band/0.9")),
    "drift": ("/", 1280, run("drift")),
    "early": ("/", 1280, run("early")),
    "began": ("/", 1280, run("began")),
    "stopped": ("/", 1280, run("stopped")),
    "killed-dark": ("/?dark", 1280, run("killed")),
    "imported": ("/", 1280, run("imported")),
    "imported-dark": ("/?dark", 800, run("imported")),
    "no-losses": ("/", 1280, run("no losses")),
    "silenced": ("/", 1280, run("silenced", open_details)),
    "long-name": ("/", 1280, run(LONG)),
    "deep": ("/", 1440, run("deep/200 layers")),
    "hostile": ("/", 800, run(HOSTILE)),
    "relative": ("/?one&dark", 1280, relative_smooth),
    "details": ("/?one", 1280, open_details),
    "hover": ("/?one", 1280, hover_losses),
    "pin": ("/?one", 1280, pin_losses),
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
            page.wait_for_timeout(1500)
            if act:
                act(tab)
                page.wait_for_timeout(700)
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
