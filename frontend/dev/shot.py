"""Screenshots of the tab: ``python frontend/dev/shot.py OUT URL_SUFFIX [width] [script]``."""

from __future__ import annotations

import sys

from playwright.sync_api import sync_playwright

ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def main(out: str, url: str, width: int = 1280, script: str = "") -> None:
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path="/usr/bin/chromium", args=ARGS)
        page = browser.new_page(viewport={"width": width, "height": 2400})
        page.on("console", lambda m: print("console", m.type, m.text))
        page.on("pageerror", lambda e: print("pageerror", e))
        page.goto(url)
        page.wait_for_timeout(1500)
        frame = page.frames[1]
        if script:
            exec(script)
            page.wait_for_timeout(600)
        print(frame.evaluate("[document.documentElement.scrollWidth, innerWidth, document.documentElement.scrollHeight]"))
        page.screenshot(path=out)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *(int(a) for a in sys.argv[3:4]), *sys.argv[4:5])
