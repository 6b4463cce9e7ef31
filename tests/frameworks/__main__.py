"""The tests of frameworks beside Keras 3 on TensorFlow, each in its own environment.

``make test-frameworks``, or ``python -m tests.frameworks NAME ...`` for some.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from pathlib import Path

from tests.frameworks.environments import ENVIRONMENTS, ROOT, Environment, python

FOLDER = Path("tests", "frameworks")


def run(environment: Environment, arguments: list[str]) -> bool:
    """Whether the tests pass there."""
    print(f"\n== {environment.name}", flush=True)
    start = time.monotonic()
    # The tests look for warnings of BN Lens themselves; those of the frameworks are not ours.
    command: list[str | Path] = [python(environment), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-W", "ignore", *arguments]
    ready = time.monotonic()
    outside = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    variables = {**outside, "TF_CPP_MIN_LOG_LEVEL": "3", **environment.variables}
    files = [FOLDER / test for test in environment.tests]
    passed = subprocess.run([*command, *files], cwd=ROOT, env=variables, check=False).returncode == 0
    print(f"{ready - start:.0f} s to install, {time.monotonic() - ready:.0f} s for the tests", flush=True)
    return passed


def main() -> int:
    """Run the environments that were named, or all; 1 where a test failed."""
    names = [e.name for e in ENVIRONMENTS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(names)}; all without it")
    parser.add_argument("--pytest", action="append", default=[], metavar="ARGUMENT", help="given to pytest")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"there is no environment {', '.join(sorted(unknown))}; expected some of {', '.join(names)}")
    chosen = [e for e in ENVIRONMENTS if not arguments.names or e.name in arguments.names]
    return int(not all([run(environment, arguments.pytest) for environment in chosen]))


if __name__ == "__main__":
    raise SystemExit(main())
