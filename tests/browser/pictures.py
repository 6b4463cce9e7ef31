"""The pictures of the README, of whole stories: ``python -m tests.browser.pictures LOGDIR [OUT]``.

LOGDIR is what ``python -m demo all --no-serve --logdir LOGDIR`` wrote (a quarter of an hour on two cores); OUT is
``demo/screenshots`` unless another folder is named.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from tests.browser.page import open_run
from tests.conftest import ROOT, wait_for
from tests.host.browser import chromium, tab
from tests.host.server import Server, tensorboard

LARGEST = 400_000
PICTURES = {
    "band-locator": ("band-locator/momentum-0.999", 1840),
    "pose-network": ("pose-network/rate-0.03", 1080),
    "pretrained-base": ("pretrained-base/a-frozen-but-trained-on-batch-statistics", 860),
    "frozen-base": ("frozen-base/harmful-dim-images", 860),
}


def shows(server: Server, run: str) -> bool:
    return run in server.run_names()


def main(logdir: Path, out: Path) -> None:
    """Photograph the top of each story's page, under TensorBoard's own bar."""
    with tensorboard(logdir) as server, chromium() as browser:
        for name, (run, height) in PICTURES.items():
            wait_for(partial(shows, server, run), f"{run} in {logdir}")
            with tab(browser, server, height=height) as opened:
                open_run(opened, run)
                # Past the first poll, after which nothing moves any more.
                opened.page.wait_for_timeout(1000)
                path = opened.screenshot(out, name)
                assert not opened.complaints, opened.complaints
            size = path.stat().st_size
            print(f"{path}: {size / 1000:.0f} kB")
            assert size < LARGEST, f"{path} has {size} bytes"


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "demo" / "screenshots")
