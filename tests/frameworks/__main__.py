"""The tests of frameworks beside Keras 3 on TensorFlow, each in its own environment.

``make test-frameworks``, or ``python -m tests.frameworks NAME ...`` for some.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.frameworks.environments import ENVIRONMENTS, ROOT, Environment, python

FOLDER = Path("tests", "frameworks")


# One process a core: the threads of the frameworks' own pools would only compete with the other environments.
ONE_THREAD = {name: "1" for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")}


def run(environment: Environment, arguments: list[str], *, alone: bool) -> bool:
    """Whether the tests pass there. Their output is printed when they end, so that it is not mixed with others'."""
    start = time.monotonic()
    # The tests look for warnings of BN Lens themselves; those of the frameworks are not ours.
    command: list[str | Path] = [python(environment), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-W", "ignore", *arguments, *(FOLDER / test for test in environment.tests)]
    outside = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    variables = {**outside, **({} if alone else ONE_THREAD), "TF_CPP_MIN_LOG_LEVEL": "3", **environment.variables}
    output = None if alone else subprocess.PIPE
    done = subprocess.run(command, cwd=ROOT, env=variables, check=False, stdout=output, stderr=subprocess.STDOUT)
    text = "" if done.stdout is None else done.stdout.decode(errors="replace")
    print(f"\n== {environment.name}\n{text}{time.monotonic() - start:.0f} s", flush=True)
    return done.returncode == 0


def main() -> int:
    """Run the environments that were named, or all; 1 where a test failed."""
    names = [e.name for e in ENVIRONMENTS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"some of {', '.join(names)}; without it those with small packages"
    )
    parser.add_argument("--pytest", action="append", default=[], metavar="ARGUMENT", help="given to pytest")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="environments that are tested at once")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"there is no environment {', '.join(sorted(unknown))}; expected some of {', '.join(names)}")
    chosen = [e for e in ENVIRONMENTS if (e.name in arguments.names if arguments.names else not e.by_name)]
    start = time.monotonic()
    for environment in chosen:  # one after the other: some see the packages of others
        python(environment)
    print(f"{time.monotonic() - start:.0f} s to install", flush=True)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        test = partial(run, arguments=arguments.pytest, alone=arguments.jobs == 1)
        return int(not all(list(pool.map(test, chosen))))


if __name__ == "__main__":
    raise SystemExit(main())
