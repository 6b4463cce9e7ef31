"""Pictures of every state of the tab, in both themes and three widths: ``python -m tests.browser.pictures [OUT]``.

The runs are real trainings (``tests/browser/gallery.py``), made once in ``out/gallery``; ``--logdir`` names another
place. ``--only runs healthy`` takes some states. Each page is also checked by axe, and the console must stay
empty. ``--readme`` writes the pictures of the README into ``demo/screenshots`` instead.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.browser import gallery
from tests.browser.page import AXE, HEATMAP, link, panel, settle
from tests.conftest import ROOT, wait_for
from tests.host.browser import Tab, chromium, tab
from tests.host.server import Server, tensorboard

VIEWER = ROOT / ".venv-viewer" / "bin" / "python"
WIDTHS = (800, 1280, 1920)
THEMES = ("light", "dark")
HEIGHT = 1000
TALLEST = 3600
LARGEST = 400_000
"""Bytes of a picture in the README."""
BROKEN, HEALTHY = "band-locator/momentum-0.999", "band-locator/momentum-0.9"
TORCH = "band-locator-torch/momentum-0.001"

Act = Callable[[Any], None]


def nothing(frame: Any) -> None:
    """Leave the page as it opens."""


def analysed(frame: Any) -> None:
    """Wait for the rows of the table of runs."""
    panel(frame, "Runs").locator("tbody tr").first.wait_for()
    frame.wait_for_function("!document.querySelector('.runs td.cause.muted')", timeout=120_000)


def filtered(frame: Any) -> None:
    """Filter the table of runs, and tick two."""
    analysed(frame)
    table = panel(frame, "Runs")
    table.get_by_label("Filter runs by a regular expression").fill("band|pose")
    table.get_by_label("problems only").check()
    for box in table.get_by_role("checkbox", name="Compare ").all()[:2]:
        box.check()


def no_match(frame: Any) -> None:
    """Filter the table of runs for what is not there."""
    analysed(frame)
    panel(frame, "Runs").get_by_label("Filter runs by a regular expression").fill("nothing like it")


def folds(frame: Any) -> None:
    """Open all that is folded."""
    closed = frame.locator(":is(.fold, .card, .card details):not([open]) > summary")
    # In the order of the page, since what is folded in a fold cannot be clicked before.
    while closed.count():
        closed.first.click()


def losses(frame: Any) -> Any:
    """The chart of the losses, which is drawn once it is in sight."""
    frame.locator(".loss-panel .chart").scroll_into_view_if_needed()
    return frame.locator(".loss-panel .u-over")


def hover(frame: Any) -> None:
    """Point at the losses."""
    losses(frame).hover(position={"x": 180, "y": 60})


def pin(frame: Any) -> None:
    """Pin a step of the losses."""
    losses(frame).click(position={"x": 180, "y": 60})


def highlight(frame: Any) -> None:
    """Light up the layers of a finding."""
    frame.get_by_role("button", name="Highlight").first.click()


def fold_blocks(frame: Any) -> None:
    """Show blocks in place of layers, and filter them."""
    panel(frame, "Layers").get_by_role("button", name="Fold blocks").click()


def filter_layers(frame: Any) -> None:
    """Show some layers."""
    frame.locator("input.search").fill("depthwise")


def ahead(frame: Any) -> None:
    """Show the whole forecast."""
    button = frame.get_by_role("button", name="Whole forecast")
    if button.count():
        button.click()


def steps_heatmap(frame: Any) -> None:
    """Colour the heatmap by steps to converge."""
    panel(frame, HEATMAP).get_by_role("button", name="updates to converge").click()


def smooth(frame: Any) -> None:
    """Smooth, over relative time."""
    frame.get_by_role("button", name="relative").click()
    frame.locator(".smoothing input").fill("0.8")


def picker(frame: Any) -> None:
    """Open the list of runs."""
    frame.locator(".picker button").first.click()


@dataclass(frozen=True)
class State:
    """What a picture shows."""

    run: str | None = None
    act: Act = nothing
    chosen: tuple[tuple[str, object], ...] = ()
    last: Act = nothing
    """What is done before every picture, since a change of the window undoes it."""
    top: bool = False
    """Only what is seen without scrolling."""


STATES = {
    "runs": State(act=analysed),
    "runs-filtered": State(act=filtered),
    "runs-no-match": State(act=no_match),
    "broken": State(BROKEN),
    "broken-folds": State(BROKEN, act=folds),
    "comparison": State(BROKEN, chosen=(("compare", HEALTHY),)),
    "warning": State("pose-network/rate-0.03-momentum-0.9"),
    "healthy": State(HEALTHY),
    "several-findings": State("pose-network/rate-0.03", act=highlight),
    "single-finding": State("frozen-base/harmful-dim-images"),
    "frozen": State("pretrained-base/a-frozen-but-trained-on-batch-statistics"),
    "dropout": State("pretrained-base/b-dropout"),
    "no-batchnorm": State("pretrained-base/c-loss-before-the-update"),
    "silenced": State("small/silenced"),
    "imported": State("other/imported"),
    "no-losses": State("other/no-losses"),
    "just-began": State(gallery.BEGAN),
    "stopped-early": State("ended/stopped-early"),
    "interrupted": State("ended/interrupted"),
    "killed": State(gallery.KILLED),
    "unreadable": State(gallery.UNREADABLE),
    "gone": State("not/there"),
    "torch": State(TORCH),
    "check": State("other/check"),
    "long": State("other/long"),
    "long-name": State(gallery.LONG_NAME),
    "tooltip": State(BROKEN, last=hover, top=True),
    "pin": State(BROKEN, act=pin),
    "smooth": State(HEALTHY, act=smooth),
    "picker": State(BROKEN, act=picker, top=True),
    "blocks": State(BROKEN, act=fold_blocks),
    "layers-filtered": State(BROKEN, act=filter_layers),
    "forecast": State("small/lagging", act=ahead),
    "heatmap-steps": State(BROKEN, act=steps_heatmap),
}
README = {
    "runs": (State(act=analysed), 1280, 720),
    "band-locator": (State(BROKEN), 1280, 1840),
    "pose-network": (State("pose-network/rate-0.03"), 1280, 1080),
    "pretrained-base": (State("pretrained-base/a-frozen-but-trained-on-batch-statistics"), 1280, 860),
    "frozen-base": (State("frozen-base/harmful-dim-images"), 1280, 860),
}


def opened_at(opened: Tab, state: State) -> Any:
    """The tab in this state."""
    fragment = link(state.run, **dict(state.chosen)) if state.run else "bn_lens"
    frame = opened.open(fragment)
    if state.run:
        settle(opened)
    state.act(frame)
    return frame


def shoot(opened: Tab, path: Path, state: State, width: int) -> list[str]:
    """Take one picture from top to bottom; returns what is wrong with the page."""
    page, frame = opened.page, opened.frame
    page.set_viewport_size({"width": width, "height": HEIGHT})
    page.mouse.move(0, 0)
    page.wait_for_timeout(250)
    if not state.top:
        frame.evaluate("document.scrollingElement.scrollTop = 0")
        high = frame.evaluate("document.documentElement.scrollHeight")
        around = page.evaluate("innerHeight") - frame.evaluate("innerHeight")
        page.set_viewport_size({"width": width, "height": min(high + around, TALLEST)})
        page.wait_for_timeout(300)
    state.last(frame)
    page.screenshot(path=path)
    found = frame.evaluate("axe.run(document, {resultTypes: ['violations']}).then((r) => r.violations)")
    wrong = [
        f"axe: {v['id']}: {v['help']}: {[n['html'][:160] for n in v['nodes'][:3]]}"
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    wide, seen = frame.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    return [*wrong, *([f"{wide} px wide in {seen} px"] if wide > seen else []), *clipped(frame)]


def clipped(frame: Any) -> list[str]:
    """Text that is cut off without a sign: neither with an ellipsis nor in a box that scrolls."""
    script = """() => [...document.querySelectorAll('#bn-lens *')].flatMap((e) => {
      const s = getComputedStyle(e);
      const hidden = ['hidden', 'clip'].includes(s.overflowX) && s.textOverflow !== 'ellipsis';
      const text = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
      return hidden && text && e.clientWidth > 2 && e.scrollWidth > e.clientWidth + 1
        ? [`clipped: ${e.className} ${e.textContent.slice(0, 60)}`] : [];
    })"""
    return list(frame.evaluate(script))


def photograph(browser: Any, server: Server, out: Path, name: str, state: State) -> int:
    """All pictures of one state; prints and counts what is wrong."""
    wrong = 0
    with tab(browser, server, height=HEIGHT) as opened:
        frame = opened_at(opened, state)
        frame.evaluate(AXE.read_text(encoding="utf-8"))
        for theme in THEMES:
            dark = "true" if theme == "dark" else "false"
            opened.page.evaluate(f"document.body.classList.toggle('dark-mode', {dark})")
            for width in WIDTHS:
                path = out / f"{name}-{theme}-{width}.png"
                for fault in shoot(opened, path, state, width):
                    wrong += 1
                    print(f"  {path.stem}: {fault}")
        for complaint in opened.complaints:
            wrong += 1
            print(f"  {name}: {complaint}")
    print(name, flush=True)
    return wrong


def saved_page(browser: Any, logdir: Path, out: Path) -> int:
    """The tab of two runs as one file, which has no TensorBoard around it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        runs = [part for run in (BROKEN, HEALTHY) for part in ("--run", run)]
        command = [sys.executable, "-m", "tb_bnlens", "report", str(logdir), "--html", str(file), *runs]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        for theme in THEMES:
            for width in WIDTHS:
                page = browser.new_page(color_scheme=theme, viewport={"width": width, "height": TALLEST})
                page.goto(f"{file.as_uri()}#{link(BROKEN)}")
                page.locator(".layer-charts .chart").first.wait_for()
                page.wait_for_timeout(300)
                page.screenshot(path=out / f"saved-page-{theme}-{width}.png")
                page.close()
    print("saved-page", flush=True)
    return 0


@contextlib.contextmanager
def served(logdir: Path, runs: int) -> Iterator[Server]:
    """A TensorBoard that has found all runs."""
    with tensorboard(logdir, python=str(VIEWER)) as server:
        wait_for(lambda: len(server.run_names()) >= runs, f"{runs} runs in {logdir}")
        yield server


def readme(browser: Any, server: Server, out: Path, only: list[str] | None) -> None:
    """The pictures of the README, in both themes."""
    for name, (state, width, height) in README.items():
        if only and name not in only:
            continue
        for theme in THEMES:
            with tab(browser, server, theme=theme, width=width, height=height) as opened:
                opened_at(opened, state)
                # Past the first poll, after which nothing moves any more.
                opened.page.wait_for_timeout(1000)
                path = opened.screenshot(out, name if theme == "light" else f"{name}-dark")
                assert not opened.complaints, opened.complaints
            size = path.stat().st_size
            print(f"{path}: {size / 1000:.0f} kB")
            assert size < LARGEST, f"{path} has {size} bytes"


def main() -> int:
    """Train what is missing, take the pictures; returns 1 if something is wrong with a page."""
    parser = argparse.ArgumentParser(description="Pictures of every state of the tab.")
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--logdir", type=Path, default=ROOT / "out" / "gallery")
    parser.add_argument("--only", nargs="+", metavar="STATE", help="some of the states")
    parser.add_argument("--readme", action="store_true", help="the pictures of the README")
    options = parser.parse_args()
    logdir = gallery.make(options.logdir.absolute())
    out = options.out or ROOT / ("demo/screenshots" if options.readme else "out/screenshots")
    out.mkdir(parents=True, exist_ok=True)
    runs = len(list(logdir.glob("*/*/bn_lens")))
    wrong = 0
    with chromium() as browser:
        with served(logdir, runs) as server:
            if options.readme:
                readme(browser, server, out, options.only)
                return 0
            names = set(server.run_names())
            for name, state in STATES.items():
                if options.only and name not in options.only:
                    continue
                if state.run == TORCH and TORCH not in names:
                    print(f"{name}: left out; make test-frameworks NAMES=torch makes an environment with PyTorch")
                    continue
                wrong += photograph(browser, server, out, name, state)
        if not options.only or "saved-page" in options.only:
            wrong += saved_page(browser, logdir, out)
        if not options.only or "empty" in options.only:
            with tempfile.TemporaryDirectory() as empty, served(Path(empty), 0) as server:
                wrong += photograph(browser, server, out, "empty", State())
    print(f"{wrong} faults. Pictures are in {out}")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
