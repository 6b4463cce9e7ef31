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
OUR_FRAME = "plugin_entry.html?name=bn_lens"
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
    kept: bool = False
    """TensorBoard is there, with nothing in our frame."""
    complaints: list[str] = field(default_factory=list)
    """Console errors, uncaught exceptions, failed requests and policy violations of our frame."""

    @property
    def frame(self) -> Any:
        """The frame of the tab, once it is there."""
        for _ in range(300):
            for frame in self.page.frames:
                if OUR_FRAME in frame.url:
                    return frame
            # Not a plain sleep: Playwright hears of new frames only while it is called.
            self.page.wait_for_timeout(100)
        raise AssertionError(f"no iframe of the tab among {[frame.url for frame in self.page.frames]}")

    def open(self, fragment: str = "bn_lens") -> Any:
        """Go to the tab and wait until it shows a run or says what is missing."""
        if not self.kept:
            self.page.goto(f"{self.server.url}/#{fragment}")
        else:
            self.kept = False
            self.page.evaluate("hash => { location.hash = hash }", fragment)
            self.page.locator(f"iframe[src*='{OUR_FRAME}']").evaluate("e => e.contentWindow.location.replace(e.src)")
        self.frame.wait_for_load_state()
        self.frame.locator("main, [role=alert], [role=status]").first.wait_for(state="attached", timeout=30_000)
        return self.frame

    def listeners(self) -> dict[str, Any]:
        """What hears complaints, by event of the page."""

        def complain(kind: str, text: str, where: str) -> None:
            if OURS.search(where) or OURS.search(text):
                self.complaints.append(f"{kind}: {text} ({where})")

        def console(message: Any) -> None:
            if message.type in ("error", "warning"):
                complain(message.type, message.text, message.location.get("url", ""))

        def response(reply: Any) -> None:
            if reply.status >= 400:
                complain("status", str(reply.status), reply.url)

        return {
            "console": console,
            "pageerror": lambda error: self.complaints.append(f"exception: {error}"),
            "requestfailed": lambda request: complain("request", str(request.failure), request.url),
            "response": response,
        }

    def screenshot(self, directory: Path, name: str) -> Path:
        """The whole window, as a PNG."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{name}.png"
        self.page.screenshot(path=path)
        return path


_running: list[Any] = []
_kept: dict[tuple[str, str], Any] = {}
"""Address of a TensorBoard and theme -> a page that has loaded it."""
MOST_KEPT = 3


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
            _kept.clear()
            browser.close()


@contextlib.contextmanager
def tab(
    browser: Any, server: Server, *, theme: str = "light", width: int = 1280, height: int = 1000, fresh: bool = False
) -> Iterator[Tab]:
    """A page, in the theme that TensorBoard takes from the browser. What is in our frame is loaded by ``Tab.open``.

    TensorBoard around our frame is loaded once for a server and a theme, since that costs 3 s of CPU time: the page of
    a test that passed is used again.

    Args:
        fresh: load TensorBoard again.
    """
    key = server.url, theme
    kept = None if fresh else _kept.pop(key, None)
    page = kept or _new_page(browser, theme)
    page.set_viewport_size({"width": width, "height": height})
    opened = Tab(server, page, kept is not None)
    listeners = opened.listeners()
    for event, listener in listeners.items():
        page.on(event, listener)
    try:
        yield opened
        for event, listener in listeners.items():
            page.remove_listener(event, listener)
        if not fresh and _emptied(opened, theme):
            _kept[key], page = page, None
    finally:
        for unwanted in (page, *(_kept.pop(old) for old in list(_kept)[:-MOST_KEPT])):
            if unwanted is not None:
                unwanted.context.close()


def _new_page(browser: Any, theme: str) -> Any:
    context = browser.new_context(color_scheme=theme)
    context.add_init_script(REPORT_VIOLATIONS)
    return context.new_page()


def _emptied(opened: Tab, theme: str) -> bool:
    """Leave TensorBoard without our frame's content, as it was loaded; False where it is another than it was."""
    page = opened.page
    if opened.server.process.poll() is not None or not any(OUR_FRAME in frame.url for frame in page.frames):
        return False
    page.unroute_all()
    page.context.clear_permissions()
    page.mouse.move(0, 0)
    opened.frame.frame_element().evaluate("e => { e.blur(); e.contentWindow.location.replace('about:blank') }")
    page.wait_for_timeout(50)
    return bool(page.evaluate("document.body.classList.contains('dark-mode')")) == (theme == "dark")
