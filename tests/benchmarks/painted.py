"""Time from navigation to a painted tab, beside TensorBoard's own tabs on the same log directory.

``python -m tests.benchmarks.painted --out out/benchmarks`` prints a table. The log directory holds a record of the lens
and what ``keras.callbacks.TensorBoard(histogram_freq=1)`` writes about the same moving statistics in 30 epochs.

A visit is a new browser page on a TensorBoard that has read everything and served none of the tabs. The three tabs take
turns, so that a busy machine slows all of them.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.generate import Truth, plan
from tests.benchmarks.review import EPOCHS, VIEWER, made, write_histograms, write_lens
from tests.conftest import wait_for
from tests.host.browser import chromium
from tests.host.server import Server, tensorboard

SIZES = ((50, 1_000), (500, 1_000_000))
VISITS = 6
PATIENCE = 120_000
"""Milliseconds that a tab may take."""


@dataclass(frozen=True)
class Shown:
    """A tab of TensorBoard, and how to tell that it is painted."""

    name: str
    link: str
    painted: str
    """A selector that matches once a person sees what the tab is for."""
    first: str
    """The first request that only this tab makes; what comes before it is TensorBoard's own start."""
    framed: bool = False


LENS = Shown(
    "BN Lens",
    "bn_lens&p.bn_lens.run=run",
    # The verdict, the losses and the heatmap, whose canvas gets its size when it is painted.
    "#bn-lens:has(.verdict h1):has(.loss-panel .uplot):has(.heat canvas[width])",
    "/data/plugin_entry.html",
    framed=True,
)
# One card of a dozen is enough here.
TIME_SERIES = Shown(
    "Time Series",
    "timeseries",
    "scalar-card line-chart svg path, scalar-card line-chart canvas, tb-histogram svg path",
    "/data/plugin/timeseries/tags",
)
HISTOGRAMS = Shown("Histograms", "histograms", "vz-histogram-timeseries svg path", "/data/plugin/histograms/tags")
TABS = (LENS, TIME_SERIES, HISTOGRAMS)


@dataclass(frozen=True)
class Visit:
    """Milliseconds since the page was navigated to."""

    host: float
    """When TensorBoard let the tab begin."""
    painted: float


def visit(browser: Any, server: Server, shown: Shown) -> Visit:
    """Open the tab in a new page, and wait until it is painted."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    try:
        page = context.new_page()
        page.goto(f"{server.url}/#{shown.link}", wait_until="commit")
        place = page.frame_locator("iframe") if shown.framed else page
        place.locator(shown.painted).first.wait_for(state="attached", timeout=PATIENCE)
        painted = page.evaluate("new Promise((done) => requestAnimationFrame(() => done(performance.now())))")
        host = page.evaluate(
            "(first) => performance.getEntriesByType('resource').find((r) => r.name.includes(first)).startTime",
            shown.first,
        )
        return Visit(host, painted)
    finally:
        context.close()


def measured(browser: Any, logdir: Path, truth: Truth, visits: int) -> dict[str, list[Visit]]:
    """Visits of every tab, by its name."""
    found: dict[str, list[Visit]] = {shown.name: [] for shown in TABS}
    for number in range(visits):
        with tensorboard(logdir, python=str(VIEWER)) as server:
            wait_for(partial(complete, server, truth), f"all of {logdir}", 300)
            # The host compresses its own file at the first request.
            server.get("index.js", headers={"Accept-Encoding": "gzip"})
            turn = number % len(TABS)
            for shown in (*TABS[turn:], *TABS[:turn]):
                found[shown.name].append(visit(browser, server, shown))
    return found


def complete(server: Server, truth: Truth) -> bool:
    """Whether everything of the log directory has been read."""
    runs = server.plugin("runs").json["runs"]
    if not runs or runs[0]["last_step"] != truth.steps:
        return False
    tags = server.get("data/plugin/histograms/tags").json.get("run/train", {})
    if len(tags) != 2 * truth.layers:
        return False
    last = max(tags)
    return len(server.get("data/plugin/histograms/histograms", run="run/train", tag=last).json) == EPOCHS


def row(name: str, visits: dict[str, list[Visit]]) -> str:
    """A line of the table: medians, and ratios of visits to the same server."""

    def middle(shown: Shown, of: str) -> float:
        return statistics.median(getattr(v, of) for v in visits[shown.name])

    def ratio(other: Shown) -> str:
        pairs = list(zip(visits[LENS.name], visits[other.name], strict=True))
        whole = statistics.median(ours.painted / theirs.painted for ours, theirs in pairs)
        own = statistics.median((a.painted - a.host) / (b.painted - b.host) for a, b in pairs)
        return f"{whole:.2f}, {own:.2f}"

    times = [f"{middle(shown, 'painted'):,.0f} ({middle(shown, 'host'):,.0f})" for shown in TABS]
    return "| " + " | ".join([name, *times, ratio(TIME_SERIES), ratio(HISTOGRAMS)]) + " |"


def main() -> None:
    """Make what is missing, measure and print."""
    parser = argparse.ArgumentParser(description="Time from navigation to a painted tab.")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks"))
    parser.add_argument("--visits", type=int, default=VISITS)
    options = parser.parse_args()
    # TensorBoard is started in another directory.
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)

    def write_both(path: Path, truth: Truth) -> None:
        write_lens(path, truth)
        write_histograms(path / "run", truth)

    print("| ms to painted, median (of it TensorBoard's start) | " + " | ".join(shown.name for shown in TABS), end="")
    print(" | over Time Series: whole, own part | over Histograms |\n" + "|---" * 6 + "|", flush=True)
    with chromium() as browser:
        for layers, steps in SIZES:
            truth = plan(steps, layers)
            logdir = made(out / f"beside_{layers}_{steps}", partial(write_both, truth=truth))
            print(
                row(f"{layers} layers, {steps:,} steps", measured(browser, logdir, truth, options.visits)), flush=True
            )


if __name__ == "__main__":
    main()
