"""How long the table of many runs takes: ``python -m tests.benchmarks.runs_table --out out/benchmarks``.

Opens the tab in a new browser page on a TensorBoard that has read all runs and analysed none, and prints when the runs
are listed, when those in sight are judged and when all are. Then a filter is typed into the finished table.
"""

from __future__ import annotations

import argparse
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.generate import Truth, plan, write
from tests.benchmarks.review import VIEWER, complete_of, made
from tests.conftest import wait_for
from tests.host.browser import chromium
from tests.host.server import Server, tensorboard

SIZES = ((100, 50, 10_000), (300, 20, 1_000))
"""Runs, layers, steps."""
PATIENCE = 300_000
JUDGED = "n => document.querySelectorAll('.runs td.cause:not(.muted)').length >= n"
NOW = "performance.timeOrigin + performance.now()"


def linked(directory: Path, truth: Truth, runs: int) -> None:
    """Many runs: one is simulated, the others are links to its files."""
    first = directory / "run_000"
    write(first, truth)
    for run in range(1, runs):
        shutil.copytree(first, directory / f"run_{run:03d}", copy_function=os.link)


def times(browser: Any, server: Server, runs: int) -> list[float]:
    """Milliseconds from navigation to listed, in sight judged and all judged; then from a key to the filtered rows."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    try:
        page = context.new_page()
        page.goto(f"{server.url}/#bn_lens", wait_until="commit")
        began = page.evaluate("performance.timeOrigin")
        page.frame_locator("iframe").locator(".runs tbody tr").first.wait_for(timeout=PATIENCE)
        frame = next(frame for frame in page.frames if "plugin_entry" in frame.url)
        found = [frame.evaluate(NOW) - began]
        in_sight = frame.evaluate(
            "Math.min(document.querySelectorAll('.runs tbody tr').length, Math.ceil(innerHeight / 36))"
        )
        for count in (in_sight, runs):
            frame.wait_for_function(JUDGED, arg=count, timeout=PATIENCE)
            found.append(frame.evaluate(NOW) - began)
        frame.locator(".runs-panel input.search").focus()
        typed = frame.evaluate(NOW)
        page.keyboard.type("7")
        frame.wait_for_function(f"document.querySelectorAll('.runs tbody tr').length < {runs}")
        return [*found, frame.evaluate(NOW) - typed]
    finally:
        context.close()


def cpu_seconds(server: Server) -> float:
    """CPU time of the process that analyses, which a busy machine changes less than the time that passes."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Make what is missing, measure and print."""
    parser = argparse.ArgumentParser(description="Time to the table of many runs.")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks"))
    options = parser.parse_args()
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    print("| runs | listed | in sight judged | all judged | filtered | CPU time of TensorBoard |", flush=True)
    print("|---" * 6 + "|", flush=True)
    with chromium() as browser:
        for runs, layers, steps in SIZES:
            make = partial(linked, truth=plan(steps, layers), runs=runs)
            logdir = made(out / f"linked_{runs}_{layers}_{steps}", make)
            with tensorboard(logdir, python=str(VIEWER)) as server:
                wait_for(complete_of(server, runs, steps), "the logdir", 600)
                before = cpu_seconds(server)
                cells = " | ".join(f"{ms / 1000:.2f} s" for ms in times(browser, server, runs))
                worked = cpu_seconds(server) - before
            print(f"| {runs} of {layers} layers, {steps:,} steps | {cells} | {worked:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
