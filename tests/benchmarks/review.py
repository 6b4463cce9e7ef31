"""How long it takes to open a long run, and what it costs, beside histograms of the same statistics.

``python -m tests.benchmarks.review --out out/benchmarks`` prints a table; ``--quick`` leaves out the largest sizes.

The other side is what ``keras.callbacks.TensorBoard(histogram_freq=1)`` leaves behind: a histogram of each layer's
moving mean and moving variance an epoch, in TensorBoard's own Time Series tab.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.generate import Simulation, Truth, channels, plan, write
from tests.conftest import ROOT, wait_for
from tests.host.browser import chromium, tab
from tests.host.server import Server, tensorboard

EPOCHS = 30
WARM_REQUESTS = 20
VISITS = 5
"""Single visits to the same page differ by a third on two cores."""
VIEWER = ROOT / ".venv-viewer" / "bin" / "python"

# Time since the frame was navigated to, when what a person waits for has been drawn.
PAINTED = """
if (location.href.includes('plugin_entry.html')) {
  const seen = (name, selector) => {
    const look = () => document.querySelector(selector)
      ? requestAnimationFrame(() => requestAnimationFrame(() => { (window.painted ??= {})[name] = performance.now(); }))
      : requestAnimationFrame(look);
    look();
  };
  seen('verdict', 'h1');
  seen('heatmap', 'canvas');
}
"""


@dataclass
class Figures:
    """One row of the table; times in milliseconds, sizes in megabytes."""

    name: str
    file: float
    ingestion: float
    cold: float
    warm: float
    detail: float
    painted: float
    painted_again: float
    memory: float
    peak: float


def run_figures(name: str, logdir: Path, runs: int, last_step: int, load_fast: str, browser: Any) -> Figures:
    """Serve a logdir of the lens and look at its first run as a person would, twice."""
    started = time.perf_counter()
    with tensorboard(logdir, f"--load_fast={load_fast}", python=str(VIEWER)) as server:
        wait_for(complete_of(server, runs, last_step), "the logdir", 300)
        # Per-channel snapshots come in under a name of their own.
        time.sleep(1.0)
        ingestion = 1e3 * (time.perf_counter() - started - 1.0)
        first, *others = server.run_names()
        cold = timed(lambda: server.plugin("overview", run=first, headers={"Accept-Encoding": "gzip"}))
        warm = statistics.median(
            timed(lambda: server.plugin("overview", run=first, headers={"Accept-Encoding": "gzip"}))
            for _ in range(WARM_REQUESTS)
        )
        detail = timed(lambda: server.plugin("layer", run=first, layer=3)) + timed(
            lambda: server.plugin("channels", run=first, layer=3)
        )
        again = statistics.median(painted(browser, server, first) for _ in range(VISITS))
        memory, peak = resident(server)

    def first_visit() -> float:
        """What a person meets who opens the tab once everything is ingested."""
        with tensorboard(logdir, f"--load_fast={load_fast}", python=str(VIEWER)) as server:
            wait_for(complete_of(server, runs, last_step), "the logdir", 300)
            time.sleep(1.0)
            return painted(browser, server, others[-1] if others else first)

    fresh = statistics.median(first_visit() for _ in range(VISITS))
    return Figures(name, size(logdir), ingestion, cold, warm, detail, fresh, again, memory, peak)


def complete_of(server: Server, runs: int, last_step: int) -> Callable[[], bool]:
    """Whether all runs have been ingested to their end."""

    def complete() -> bool:
        entries = server.plugin("runs").json["runs"]
        return len(entries) == runs and all(entry["last_step"] == last_step for entry in entries)

    return complete


def painted(browser: Any, server: Server, run: str) -> float:
    """Milliseconds from the frame's navigation to verdict and heatmap on the screen."""
    with tab(browser, server, fresh=True) as opened:
        opened.page.context.add_init_script(PAINTED)
        opened.page.goto(f"{server.url}/#bn_lens&p.bn_lens.run={run}")
        for _ in range(600):
            # TensorBoard may replace the iframe once its list of plugins has come, so it is looked up each time.
            done = opened.frame.evaluate("[window.painted?.verdict ?? 0, window.painted?.heatmap ?? 0]")
            if all(done):
                return float(max(done))
            opened.page.wait_for_timeout(100)
        raise TimeoutError(
            f"the tab was not painted within a minute; it shows {opened.frame.inner_text('body')[:200]!r}"
        )


def histogram_figures(name: str, logdir: Path, layers: int, browser: Any) -> Figures:
    """The same for histograms: one tag of one layer is a detail; there is no overview."""
    started = time.perf_counter()
    with tensorboard(logdir, python=str(VIEWER)) as server:

        def complete() -> bool:
            tags = server.get("data/plugin/histograms/tags").json.get("train", {})
            return len(tags) == 2 * layers and len(one(server).json) == EPOCHS

        def one(server: Server) -> Any:
            return server.get("data/plugin/histograms/histograms", run="train", tag="bn_0/moving_mean")

        wait_for(complete, "the histograms", 300)
        ingestion = 1e3 * (time.perf_counter() - started)

        def every_layer() -> None:
            for layer in range(layers):
                for what in ("moving_mean", "moving_variance"):
                    server.get("data/plugin/histograms/histograms", run="train", tag=f"bn_{layer}/{what}")

        cold = timed(every_layer)
        detail = timed(lambda: one(server))
        again = timeseries_painted(browser, server)
        memory, peak = resident(server)
    return Figures(name, size(logdir), ingestion, cold, float("nan"), detail, float("nan"), again, memory, peak)


def timeseries_painted(browser: Any, server: Server) -> float:
    """Milliseconds from navigation to the first histogram drawn; the tab shows a dozen cards a page."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    try:
        page = context.new_page()
        page.goto(f"{server.url}/#timeseries")
        page.locator("tb-histogram svg path, histogram-card svg path").first.wait_for(timeout=60_000)
        return float(page.evaluate("performance.now()"))
    finally:
        context.close()


def write_lens(logdir: Path, truth: Truth) -> None:
    write(logdir / "run", truth)


def write_histograms(logdir: Path, truth: Truth) -> None:
    """What Keras' own callback leaves of the moving statistics, an epoch at a time."""
    import tensorflow as tf

    simulation = Simulation(truth)
    with tf.summary.create_file_writer(str(logdir / "train")).as_default():
        for epoch in range(1, EPOCHS + 1):
            simulation.advance(truth.steps * epoch // EPOCHS)
            for layer, pair in enumerate(zip(*simulation.moving(), strict=True)):
                for what, values in zip(("moving_mean", "moving_variance"), pair, strict=True):
                    tf.summary.histogram(f"bn_{layer}/{what}", np.resize(values, channels(layer)), step=epoch)


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that a request takes."""
    started = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - started)


def size(directory: Path) -> float:
    """Megabytes on disk."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1e6


def resident(server: Server) -> tuple[float, float]:
    """Megabytes that TensorBoard and its data server hold now, and held at most."""
    listing = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    own = [
        int(pid)
        for pid, parent in map(str.split, listing.splitlines())
        if server.process.pid in map(int, (pid, parent))
    ]
    now = peak = 0.0
    for pid in own:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        values = {line.split(":")[0]: line.split() for line in lines}
        now += int(values["VmRSS"][1]) / 1024
        peak += int(values["VmHWM"][1]) / 1024
    return now, peak


def made(path: Path, make: Callable[[Path], object]) -> Path:
    """A logdir that is made once and kept."""
    if not path.exists():
        unfinished = path.with_name(path.name + ".partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        make(unfinished)
        unfinished.rename(path)
    return path


def copies(directory: Path, truth: Truth, runs: int) -> None:
    """Many runs: one is simulated, the others are its copies."""
    write(directory / "run_000", truth)
    for run in range(1, runs):
        shutil.copytree(directory / "run_000", directory / f"run_{run:03d}")


def report(rows: list[Figures]) -> str:
    """A table in Markdown."""
    columns = "file MB,ingested ms,overview cold ms,warm ms,layer ms,painted ms,again ms,memory MB,peak MB".split(",")
    lines = ["| | " + " | ".join(columns) + " |", "|" + "---|" * (len(columns) + 1)]
    for row in rows:
        cells = [f"{value:,.1f}" if value < 100 else f"{value:,.0f}" for value in list(asdict(row).values())[1:]]
        lines.append(f"| {row.name} | " + " | ".join("" if cell == "nan" else cell for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Make what is missing, measure, print and keep the figures."""
    from tests.benchmarks.growth import table  # which uses what is above

    parser = argparse.ArgumentParser(description="Time to open long runs, and what it costs.")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks"))
    parser.add_argument("--quick", action="store_true", help="up to 1e5 steps, and 10 runs instead of 100")
    parser.add_argument("--load-fast", choices=["true", "false"], default="true")
    options = parser.parse_args()
    # TensorBoard is started in another directory.
    options.out = options.out.absolute()
    options.out.mkdir(parents=True, exist_ok=True)
    sizes = [(layers, steps) for layers in (50, 500) for steps in (1_000, 100_000, 1_000_000)] + [(200, 1_000_000)]
    if options.quick:
        sizes = [size for size in sizes if size[1] < 1_000_000]
    rows: list[Figures] = []
    with chromium() as browser:
        empty = made(options.out / "empty", lambda path: path.mkdir())
        with tensorboard(empty, f"--load_fast={options.load_fast}", python=str(VIEWER)) as server:
            server.plugin("runs")
            rows.append(Figures("no data", 0, *[float("nan")] * 6, *resident(server)))  # type: ignore[call-arg]

        def add(row: Figures) -> None:
            rows.append(row)
            print(report([row]).splitlines()[-1], flush=True)

        for layers, steps in sizes:
            truth = plan(steps, layers)
            name = f"lens, {layers} layers, {steps:,} steps ({len(truth.records)} records)"
            logdir = made(options.out / f"lens_{layers}_{steps}", partial(write_lens, truth=truth))
            add(run_figures(name, logdir, 1, steps, options.load_fast, browser))
        for layers in (50, 500):
            truth = plan(100_000, layers)
            logdir = made(options.out / f"histograms_{layers}", partial(write_histograms, truth=truth))
            add(histogram_figures(f"histograms, {layers} layers, {EPOCHS} epochs", logdir, layers, browser))
        runs = 10 if options.quick else 100
        truth = plan(10_000, 50)
        logdir = made(options.out / f"runs_{runs}", lambda path: copies(path, truth, runs))
        add(
            run_figures(
                f"lens, {runs} runs of 50 layers, 10,000 steps", logdir, runs, 10_000, options.load_fast, browser
            )
        )
    print(report(rows))
    print(table(options.out))
    (options.out / "review.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
