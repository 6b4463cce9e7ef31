"""How disk, memory and the table of runs grow with runs, layers and steps.

    python -m tests.benchmarks.growth                 # part of make review
    python -m tests.benchmarks.growth --runs 100 --layers 50 --steps 10000   # one size

TensorBoard without TensorFlow serves each logdir. Its memory includes the data server's. It is taken after a request
for every row of the table of runs and a visit to a tenth of the runs. A slope is the exponent of a power: 1 where twice
the size costs twice as much.
"""

from __future__ import annotations

import argparse
import math
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.generate import plan, write
from tests.benchmarks.review import VIEWER, complete_of, made, resident, size
from tests.conftest import wait_for
from tests.host.server import Server, tensorboard

RUNS, LAYERS, STEPS = 10, 50, 10_000
"""What the other two are while one varies."""
VARIED = {"runs": (1, 10, 100), "layers": (10, 50, 200), "steps": (1_000, 10_000, 100_000)}
ASKED_AT_ONCE = 2
"""Rows that the table of runs asks for together."""


@dataclass(frozen=True)
class Grown:
    """A logdir of runs of one size, served; megabytes and seconds."""

    runs: int
    layers: int
    steps: int
    disk: float
    listed: float
    """One list of runs, nothing judged yet."""
    judged: float
    """Every row of the table of runs."""
    memory: float
    """TensorBoard and its data server, at the end."""
    peak: float


def grown(out: Path, runs: int, layers: int, steps: int) -> Grown:
    """Serve such a logdir, ask for every row of the table of runs, and open a tenth of the runs."""
    truth = plan(steps, layers)

    def write_all(directory: Path) -> None:
        write(directory / "run_000", truth)
        for run in range(1, runs):
            shutil.copytree(directory / "run_000", directory / f"run_{run:03d}")

    logdir = made(out / f"growth_{runs}_{layers}_{steps}", write_all)
    with tensorboard(logdir, python=str(VIEWER)) as server:
        wait_for(complete_of(server, runs, steps), "the logdir", 600)
        time.sleep(1.0)  # per-channel snapshots come in under a name of their own
        started = time.perf_counter()
        names = server.run_names()
        listed = time.perf_counter() - started
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            list(pool.map(lambda name: server.plugin("summary", run=name), names))
        judged = time.perf_counter() - started
        for name in names[:: max(len(names) // 10, 1)]:
            visit(server, name)
        return Grown(runs, layers, steps, size(logdir), listed, judged, *resident(server))


def visit(server: Server, run: str) -> None:
    """What the page of a run asks for."""
    server.plugin("overview", run=run)
    server.plugin("losses", run=run)
    server.plugin("series", run=run, row="distance_rms")
    server.plugin("layer", run=run, layer=3)
    server.plugin("channels", run=run, layer=3)


def slope(rows: Sequence[Grown], by: str, what: str, base: float = 0.0) -> float:
    """Exponent of the growth from the smallest to the largest size, of what lies above the base."""
    first, last = rows[0], rows[-1]
    low, high = (getattr(row, what) - base for row in (first, last))
    return math.log(high / low) / math.log(getattr(last, by) / getattr(first, by)) if low > 0 < high else math.nan


def report(rows: Sequence[Grown]) -> str:
    """A table in Markdown."""
    heads = ("runs", "layers", "steps", "disk MB", "listed s", "judged s", "memory MB", "peak MB")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [
            f"{v:,}" if isinstance(v, int) else f"{v:,.2f}" if v < 10 else f"{v:,.0f}" for v in asdict(row).values()
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table(out: Path) -> str:
    """Growth in each direction, with its slopes."""
    empty = made(out / "empty", lambda path: path.mkdir())
    with tensorboard(empty, python=str(VIEWER)) as server:
        server.plugin("runs")
        base = resident(server)[0]
    known: dict[tuple[int, int, int], Grown] = {}
    said = [f"TensorBoard without data: {base:.0f} MB."]
    for by, sizes in VARIED.items():
        rows = []
        for value in sizes:
            shape = {"runs": RUNS, "layers": LAYERS, "steps": STEPS, by: value}
            key = shape["runs"], shape["layers"], shape["steps"]
            if key not in known:
                known[key] = grown(out, *key)
            rows.append(known[key])
        slopes = [
            f"{what} {slope(rows, by, what, base if what == 'memory' else 0.0):.2f}"
            for what in ("disk", "judged", "memory")
        ]
        said += ["", report(rows), "", f"Slopes by {by}: {', '.join(slopes)}."]
        print("\n".join(said[-4:]), flush=True)
    return "\n".join(said)


def main() -> None:
    """Print the tables, or the row of one size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks"))
    for name in VARIED:
        parser.add_argument(f"--{name}", type=int)
    options = parser.parse_args()
    out = options.out.absolute()  # TensorBoard is started in another directory
    out.mkdir(parents=True, exist_ok=True)
    if options.runs or options.layers or options.steps:
        print(report([grown(out, options.runs or RUNS, options.layers or LAYERS, options.steps or STEPS)]))
    else:
        table(out)


if __name__ == "__main__":
    main()
