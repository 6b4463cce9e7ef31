"""Verdicts on many trainings beside the truth: ``python -m tests.calibration.verdicts KIND [NAME ...]``.

The kind is ``architectures``, with names of ``ARCHITECTURES``, or ``random``, with seeds. Prints one line a training,
and how many were misjudged.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tests.calibration.architectures import ARCHITECTURES, train
from tests.calibration.recording import one_thread
from tests.diagnosis.random_runs import drawn
from tests.diagnosis.test_unseen import SEEDS, misjudged, told

Judged = tuple[str, str, str]
"""What was trained; what is told and true of it; how it was misjudged, empty where it was not."""


def architectures(names: Sequence[str]) -> Iterator[Judged]:
    """Healthy trainings: anything but silence is a false alarm, unless the truth is that inference suffers."""
    for name in names or ARCHITECTURES:
        found = train(name)
        wrong = "" if found.silent or not found.healthy else "false alarm"
        wrong = "missed" if found.silent and found.inference > 1.5 * max(found.batch, found.recalibrated) else wrong
        losses = f"inference {found.inference:.4g}, batch {found.batch:.4g}, recalibrated {found.recalibrated:.4g}"
        yield name, f"{losses}; told {found.severity} {found.findings}", wrong


def random(seeds: Sequence[str]) -> Iterator[Judged]:
    """Trainings drawn at random; see ``tests/diagnosis/test_unseen.py`` for the limits."""
    for seed in map(int, seeds or map(str, SEEDS)):
        with tempfile.TemporaryDirectory() as directory:
            failures, true = told(drawn(seed), seed, Path(directory))
        losses = f"inference {true.inference:.4g}, batch {true.batch:.4g}, recalibrated {true.recalibrated:.4g}"
        yield str(seed), f"{losses}; told {failures}", misjudged(failures, true)


def main(arguments: Sequence[str]) -> int:
    """Train, print, and count; 1 where a training was misjudged."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=("architectures", "random"))
    parser.add_argument("names", nargs="*", metavar="NAME")
    chosen = parser.parse_args(arguments)
    one_thread()
    judged = list[Judged]()
    for one in (architectures if chosen.kind == "architectures" else random)(chosen.names):
        judged.append(one)
        print(f"{one[2] or 'right'}: {one[0]}: {one[1]}", flush=True)
    wrong = [one[0] for one in judged if one[2]]
    print(f"{len(judged)} trainings, {len(wrong)} misjudged{': ' if wrong else ''}{', '.join(wrong)}")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
