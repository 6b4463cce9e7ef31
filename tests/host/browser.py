"""The tab as a person sees it: Debian's Chromium on a real TensorBoard, with everything that it complains about."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.host.server import Server

CHROMIUM = os.environ.get("BN_LENS_CHROMIUM", "/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
OURS = re.compile(r"/data/plugin/bn_lens/|plugin_entry\.html")

# Violations reach no console in some Chromiums, so each frame reports its own.
REPORT_VIOLATIONS = """
addEventListener('securitypolicyviolation', (event) => console.error(
  'CSP violation: ' + event.violatedDirective + ' blocked ' + event.blockedURI + ' in ' + location.href));
"""


@dataclass
class Tab:
    """The BN Lens tab in one browser page."""

    server: Server
    page: Any
    complaints: list[str] = field(default_factory=list)
    """Console errors, uncaught exceptions, failed requests and policy violations of our frame."""

    @property
    def frame(self) -> Any:
        """The frame of the tab, once it is there."""
        for _ in range(300):
            for frame in self.page.frames:
                if "plugin_entry.html?name=bn_lens" in frame.url:
                    return frame
            # Not a plain sleep: Playwright hears of new frames only while it is called.
            self.page.wait_for_timeout(100)
        raise AssertionError(f"no iframe of the tab among {[frame.url for frame in self.page.frames]}")

    def open(self, fragment: str = "bn_lens") -> Any:
        """Go to the tab and wait until it shows a run or says what is missing."""
        self.page.goto(f"{self.server.url}/#{fragment}")
        self.frame.wait_for_load_state()
        self.frame.locator("main, [role=alert], [role=status]").first.wait_for(state="attached", timeout=30_000)
        return self.frame

    def screenshot(self, directory: Path, name: str) -> Path:
        """The whole window, as a PNG."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{name}.png"
        self.page.screenshot(path=path)
        return path


_running: list[Any] = []


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser. Playwright runs once in a process, so who comes later gets the one that is there."""
    if _running:
        yield _running[0]
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        _running.append(browser)
        try:
            yield browser
        finally:
            _running.clear()
            browser.close()


@contextlib.contextmanager
def tab(browser: Any, server: Server, *, theme: str = "light", width: int = 1280, height: int = 1000) -> Iterator[Tab]:
    """A fresh page, in the theme that TensorBoard takes from the browser."""
    context = browser.new_context(color_scheme=theme, viewport={"width": width, "height": height})
    context.add_init_script(REPORT_VIOLATIONS)
    page = context.new_page()
    opened = Tab(server, page)

    def complain(kind: str, text: str, where: str) -> None:
        if OURS.search(where) or OURS.search(text):
            opened.complaints.append(f"{kind}: {text} ({where})")

    page.on(
        "console",
        lambda message: (
            complain(message.type, message.text, message.location.get("url", ""))
            if message.type in ("error", "warning")
            else None
        ),
    )
    page.on("pageerror", lambda error: opened.complaints.append(f"exception: {error}"))
    page.on("requestfailed", lambda request: complain("request", str(request.failure), request.url))
    page.on("response", lambda reply: complain("status", str(reply.status), reply.url) if reply.status >= 400 else None)
    try:
        yield opened
    finally:
        context.close()
