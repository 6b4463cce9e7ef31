"""The tests on the oldest and the newest supported versions of everything, each set in its own environment.

``make versions``, or ``python -m tests.versions SET ...`` for some of them. Tests what is committed, from a clone, and
prints a Markdown table, which docs/measurements.md repeats. A set with TensorFlow takes some 2 GB and 10 minutes. Where
there is no TensorFlow, tests/conftest.py leaves out the test files that import it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parent.parent
SHOWN = ("tensorflow", "keras", "tensorboard", "numpy")


@dataclass(frozen=True)
class VersionSet:
    """One environment."""

    name: str
    python: str
    pins: tuple[str, ...] = ()
    """What pip is held to; it takes the newest of everything else."""
    tensorflow: bool = True
    forced: tuple[str, ...] = ()
    """Installed over what pip resolved, against what TensorFlow asks for."""
    left_out: tuple[str, ...] = ()
    """Arguments for pytest that leave out what these versions do not have."""
    old: bool = False
    """Whether the packages use what was deprecated after their release: then such warnings are not errors."""


# TensorBoard to 2.20 imports pkg_resources, which setuptools 82 no longer has.
PKG_RESOURCES = "setuptools<82"

SETS = (
    VersionSet(
        "oldest",
        "3.10",
        ("tensorflow==2.16.1", "keras==3.3.*", "tensorboard==2.16.*", "numpy==1.26.*", PKG_RESOURCES),
        # TensorFlow 2.16 requires TensorBoard 2.16.
        forced=("tensorboard==2.18.*",),
        # Keras 3.3 has no renorm. Its test_on_batch, which the matrix compares with, fails under steps_per_execution.
        # Under float16 it does not count the steps of a partial last execution. It accepts only floats as loss weights
        # and no variable in int(). It does not save the layer names that the importer's tests expect.
        # It has no optional inputs.
        left_out=(
            "-k",
            "not renorm and not executions_of_3_ragged and not executions_of_3_float16 and not several_outputs",
            "--deselect=tests/diagnosis/test_real_runs.py::test_the_cause_is_named[poisoned]",
            "--deselect=tests/capture/test_fits.py::test_optional_inputs",
            "--deselect=tests/test_importer.py",
        ),
        old=True,
    ),
    VersionSet("middle", "3.12", ("tensorflow==2.18.*", "tensorboard==2.18.*", PKG_RESOURCES), old=True),
    VersionSet("newest", "3.11"),
    VersionSet("newest-python", "3.13"),
    VersionSet(
        "oldest-viewer",
        "3.10",
        ("tensorboard==2.16.*", "numpy==1.26.0", "werkzeug==2.2.*", PKG_RESOURCES),
        tensorflow=False,
        old=True,
    ),
    VersionSet("viewer-2.18", "3.10", ("tensorboard==2.18.*", PKG_RESOURCES), tensorflow=False, old=True),
    VersionSet("newest-viewer", "3.13", tensorflow=False),
)


def interpreter(version: str) -> str:
    """A Python of this version, from the path or from pyenv.

    Raises:
        SystemExit: there is none.
    """
    candidates: list[str | Path | None] = [shutil.which(f"python{version}")]
    candidates += Path.home().glob(f".pyenv/versions/{version}.*/bin/python")
    for candidate in filter(None, candidates):
        if candidate is None:
            continue
        # pyenv puts a name on the path for every version, installed or not.
        done = subprocess.run([str(candidate), "-V"], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.startswith(f"Python {version}."):
            return str(candidate)
    raise SystemExit(f"no Python {version} on the path or in ~/.pyenv; install it, or name other sets")


def environment(directory: Path, chosen: VersionSet, clone: Path, *, tensorflow: bool) -> Path:
    """The Python of an environment with the clone installed; an environment that was finished before is reused."""
    python, finished = directory / "bin" / "python", directory / "finished"
    if finished.exists():
        return python
    subprocess.run([interpreter(chosen.python), "-m", "venv", "--clear", directory], check=True)
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    constraints = directory / "constraints.txt"
    constraints.write_text("\n".join(pin for pin in chosen.pins if tensorflow or not pin.startswith("tensorflow=")))
    # TensorBoard imports pkg_resources without requiring it.
    unrequired = [pin for pin in chosen.pins if pin == PKG_RESOURCES]
    extras = "tensorflow,test" if tensorflow else "test"
    subprocess.run([*pip, "-c", constraints, *unrequired, "-e", f"{clone}[{extras}]"], check=True)
    if chosen.forced:
        subprocess.run([*pip, "--no-deps", *chosen.forced], check=True)
    finished.touch()
    return python


def versions(python: Path) -> dict[str, str]:
    """Installed versions by name, of the packages that the table shows."""
    code = (
        "import importlib.metadata as m, json, platform\n"
        f"found = {{n: m.version(n) for n in {SHOWN!r} if any(True for _ in m.distributions(name=n))}}\n"
        "print(json.dumps({'python': platform.python_version(), **found}))"
    )
    return dict(json.loads(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout))


def install(chosen: VersionSet, where: Path) -> tuple[Path, Path]:
    """A fresh clone and the Python of its environment, made where it is not there yet."""
    directory = where / chosen.name
    clone = directory / "clone"
    shutil.rmtree(clone, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    python = environment(directory / "venv", chosen, clone, tensorflow=chosen.tensorflow)
    # Where the tests look for an environment without TensorFlow.
    viewer = directory / "venv" if not chosen.tensorflow else directory / "viewer"
    if chosen.tensorflow:
        environment(viewer, chosen, clone, tensorflow=False)
    (clone / ".venv-viewer").symlink_to(viewer)
    return clone, python


def run(chosen: VersionSet, where: Path, arguments: list[str]) -> dict[str, object]:
    """Install a set, run the tests there, and keep the result for the table."""
    directory = where / chosen.name
    clone, python = install(chosen, where)
    report = directory / "junit.xml"
    command: list[str | Path] = [python, "-m", "pytest", "-m", "not slow and not browser", "-q", "-n", "2"]
    command += ["--dist", "loadgroup"]
    command += [f"--junitxml={report}", *arguments, *chosen.left_out]
    command += ["-W", "default", "--disable-warnings"] if chosen.old else []
    # Where CI is set, a missing browser fails a test instead of skipping it.
    outside = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTHONPATH", "VIRTUAL_ENV")}
    with (directory / "log.txt").open("wb") as log:
        ended = subprocess.run(command, cwd=clone, env=outside, stdout=log, stderr=subprocess.STDOUT, check=False)
    result: dict[str, object] = {"set": chosen.name, **versions(python), **counts(report), "ended": ended.returncode}
    (directory / "result.json").write_text(json.dumps(result))
    return result


def counts(report: Path) -> dict[str, int]:
    """Passed, failed and skipped, from pytest's XML; errors count as failed."""
    if not report.exists():
        return {"passed": 0, "failed": 1, "skipped": 0}
    suite = next(ElementTree.parse(report).iter("testsuite"))
    total, failed, errors, skipped = (int(suite.get(n, 0)) for n in ("tests", "failures", "errors", "skipped"))
    return {"passed": total - failed - errors - skipped, "failed": failed + errors, "skipped": skipped}


def table(where: Path) -> str:
    """Every set that was run, as Markdown."""
    columns = ("set", "python", *SHOWN, "passed", "failed", "skipped")
    titles = ("set", "Python", "TensorFlow", "Keras", "TensorBoard", "NumPy", "passed", "failed", "skipped")
    rows = [titles, ("---",) * len(titles)]
    for chosen in SETS:
        kept = where / chosen.name / "result.json"
        if kept.exists():
            result = json.loads(kept.read_text())
            rows.append(tuple(str(result.get(column, "none")) for column in columns))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> int:
    """Run the sets that were named, or all; 1 where a test failed."""
    names = [s.name for s in SETS]
    parser = argparse.ArgumentParser(description="Run the tests on the oldest and the newest supported versions.")
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"some of {', '.join(names)}; all without it")
    parser.add_argument("--where", type=Path, default=ROOT / "out" / "versions", help="environments and results")
    parser.add_argument("--fresh", action="store_true", help="install again what an earlier run has installed")
    parser.add_argument("--pytest", action="append", default=[], metavar="ARGUMENT", help="an argument for pytest")
    arguments = parser.parse_args()
    if unknown := set(arguments.sets) - set(names):
        parser.error(f"there is no set {', '.join(sorted(unknown))}; expected some of {', '.join(names)}")
    where = arguments.where.absolute()
    failed = False
    for chosen in SETS:
        if not arguments.sets or chosen.name in arguments.sets:
            print(f"{chosen.name}: {where / chosen.name / 'log.txt'}", file=sys.stderr, flush=True)
            if arguments.fresh:
                shutil.rmtree(where / chosen.name, ignore_errors=True)
            result = run(chosen, where, arguments.pytest)
            failed |= bool(result["failed"] or result["ended"])
    print(table(where))
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
