"""Keras' own tests that train, with and without the lens: code that nobody here wrote.

``make test-upstream``, or ``python -m tests.upstream PART ...`` for some. The tests come from the source distribution
of the Keras that is installed. Every test runs without the lens, with it at full density and ``on_error="raise"``, and
with it at its defaults, and the states after each ``fit`` are compared. Where one differs, all run once more
without the lens: what differs then too is not the lens' doing. Prints a Markdown table for docs/measurements.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from tests.frameworks.environments import ROOT, UPSTREAM, python
from tests.upstream.compare import Record, compare

WHERE = ROOT / "out" / "upstream"
APPLICATIONS = "applications"
PARTS = ("trainers", "callbacks", "models", "optimizers", "saving", "layers", APPLICATIONS)

LENSES = {"full density": {"overhead": float("inf"), "on_error": "raise"}, "defaults": {}}


def keras_tests(where: Path) -> Path:
    """The tests of the installed Keras, a folder like ``keras/src``; downloaded where they are not there yet.

    They import the installed package by full names, so they run from anywhere.
    """
    version = metadata.version("keras")
    folder = where / f"keras-{version}" / "keras" / "src"
    if not folder.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*pip, "--dest", where, f"keras=={version}"], check=True)
        with tarfile.open(where / f"keras-{version}.tar.gz") as archive:
            archive.extractall(where, [m for m in archive if m.name.endswith("_test.py")], filter="data")
    return folder


def environment() -> dict[str, str]:
    """The variables of a run: quiet, on the CPU, with this repository on the path."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}


def record(folder: Path, out: Path, tests: Sequence[str], lens: dict[str, object] | None) -> Record:
    """Run tests of Keras and return what the plugin has written."""
    command: list[str | Path] = [python(UPSTREAM), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-c", os.devnull, "--rootdir", folder]
    command += ["--import-mode=importlib", "--continue-on-collection-errors", "-p", "tests.upstream.plugin"]
    command += ["--fits", out, *(() if lens is None else ("--lens", json.dumps(lens))), *tests]
    with out.with_suffix(".log").open("wb") as log:
        subprocess.run(command, cwd=folder, env=environment(), stdout=log, stderr=subprocess.STDOUT, check=False)
    return dict(json.loads(out.read_text()))


def run(part: str, folder: Path, where: Path) -> list[str]:
    """Rows of the table for one part of Keras' tests."""
    name = part.replace("/", "-")
    start = time.monotonic()
    plain = record(folder, where / f"{name}.without.json", [part], None)
    rows = []
    again: Record | None = None
    for lens, options in LENSES.items():
        watched = record(folder, where / f"{name}.{lens.replace(' ', '-')}.json", [part], options)
        found = compare(plain, watched)
        if found.differing and again is None:
            again = record(folder, where / f"{name}.again.json", [part], None)
        changing = {} if again is None else compare(plain, again).differing
        harmed = {test: what for test, what in found.differing.items() if test not in changing}
        by_itself = len(found.differing) - len(harmed)
        cells = (part, len(plain["outcomes"]), lens, found.compared, len(harmed), by_itself)
        rows.append(f"| {' | '.join(str(cell) for cell in cells)} |")
        for test, what in harmed.items():
            print(f"{lens}: {test}: {what}", flush=True)
    print(f"{part}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return rows


def main() -> int:
    """Run the parts that were named, or all; 1 where the lens changed anything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"folders or files of keras/src; {', '.join(PARTS)}")
    parts = parser.parse_args().parts or PARTS
    WHERE.mkdir(parents=True, exist_ok=True)
    folder = keras_tests(WHERE)
    titles = ("tests of Keras", "tests", "lens", "fits compared", "tests that differ", "differ without the lens too")
    table = [f"| {' | '.join(titles)} |", "|---|---|---|---|---|---|"]
    harmed = False
    for part in parts:
        if part == APPLICATIONS:
            command: list[str | Path] = [python(UPSTREAM), "-m", "tests.upstream.applications"]
            harmed |= subprocess.run(command, cwd=ROOT, env=environment(), check=False).returncode != 0
        else:
            table += run(part, folder, WHERE)
    print("\n".join(table))
    return int(harmed or any(row.split(" | ")[4] != "0" for row in table[2:]))


if __name__ == "__main__":
    raise SystemExit(main())
