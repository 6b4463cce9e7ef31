"""``python -m tb_bnlens report LOGDIR``: the report on the command line. Needs no TensorFlow.

``python -m tb_bnlens import CHECKPOINT_DIR --out LOGDIR`` makes a record of saved weights, and needs it.

Exit codes: 0 nothing found at or above ``--fail-on`` (always, without it); 1 something was; 2 wrong usage, or a
log directory or run that cannot be read.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

from tb_bnlens.report import build_report
from tb_bnlens.report.compare import compare
from tb_bnlens.report.schema import Report
from tb_bnlens.report.text import render, render_comparison
from tb_bnlens.rules.rule import Severity

OK, FOUND, UNREADABLE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "import":
        return _import(arguments)
    # Imported here so that `--help` and wrong usage answer at once.
    from tb_bnlens.reader import RunNotFound, Unreadable, list_runs, open_logdir, read_run

    wanted = list(dict.fromkeys([*(arguments.run or []), *(arguments.compare or [])]))
    try:
        provider = open_logdir(arguments.logdir)
        names: list[Any] = wanted or list(list_runs(provider))
        if not names:
            raise RunNotFound(
                f"no BN Lens record under {arguments.logdir!r}; train with callbacks=[tb_bnlens.BNLens(log_dir)]"
            )
        report = build_report([read_run(provider, "", run) for run in names])
    except (RunNotFound, Unreadable, OSError) as e:
        print(f"tb_bnlens report: {e.args[0] if e.args else e}", file=sys.stderr)
        return UNREADABLE
    difference = None
    if arguments.compare:
        by_name = {run["run"]: run for run in report["runs"]}
        first, second = (by_name.get(n) or report["runs"][wanted.index(n)] for n in arguments.compare)
        difference = compare(first, second)
        report["comparison"] = difference
    if arguments.json:
        print(json.dumps(report, indent=2, allow_nan=False))
    else:
        print(printable(render(report)), end="")
        if difference:
            print("\n" + printable(render_comparison(difference)), end="")
    return FOUND if arguments.fail_on and _reaches(report, Severity(arguments.fail_on)) else OK


def _import(arguments: argparse.Namespace) -> int:
    from tb_bnlens.importer import CannotImport, import_checkpoints

    try:
        series = import_checkpoints(
            arguments.checkpoints,
            arguments.out,
            run=arguments.run,
            momentum=arguments.momentum,
            epsilon=arguments.epsilon,
            steps_per_epoch=arguments.steps_per_epoch,
            from_scratch=arguments.from_scratch,
        )
    except ModuleNotFoundError as e:
        if e.name not in ("tensorflow", "keras", "h5py"):
            raise
        print(
            f"tb_bnlens import: {e.name} is not installed, and reading checkpoints needs it; run: "
            "pip install 'tensorboard-plugin-bnlens[tensorflow]'",
            file=sys.stderr,
        )
        return UNREADABLE
    except (CannotImport, OSError) as e:
        print(f"tb_bnlens import: {e}", file=sys.stderr)
        return UNREADABLE
    for note in series.notes:
        print(f"tb_bnlens import: {note}", file=sys.stderr)
    count, first, last = len(series.checkpoints), series.steps[0], series.steps[-1]
    print(f"{count} checkpoint{'' if count == 1 else 's'}, steps {first:,} to {last:,}. Now:")
    print(f"python -m tb_bnlens report {shlex.quote(arguments.out)}")
    return OK


def printable(text: str) -> str:
    """The text with control characters spelled out: names from a log directory must not steer a terminal."""
    # Of category C are controls, escapes, marks that turn the direction of text, and halves of surrogate pairs, which
    # stand for octets of a file name that are no text and which cannot be printed at all.
    return "".join(c if c == "\n" or not unicodedata.category(c).startswith("C") else ascii(c)[1:-1] for c in text)


def _reaches(report: Report, limit: Severity) -> bool:
    return any(Severity(run["severity"]).rank <= limit.rank for run in report["runs"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tb_bnlens", description="BN Lens on the command line.")
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser(
        "report",
        help="say what is wrong with the BatchNorm layers of the runs in a log directory",
        description="Verdict, findings and layers of each run under LOGDIR.",
        epilog="Exit codes: 0 nothing at or above --fail-on (always, without it); 1 something; 2 wrong usage, or "
        "nothing that can be read.",
    )
    report.add_argument("logdir", metavar="LOGDIR", help="what you give to tensorboard --logdir")
    report.add_argument("--json", action="store_true", help="print JSON")
    report.add_argument("--run", action="append", metavar="R", help="only this run; can be given again")
    report.add_argument("--fail-on", choices=["error", "warning"], help="exit with 1 where this or worse is found")
    report.add_argument("--compare", nargs=2, metavar=("A", "B"), help="also say what changed from run A to run B")
    _add_import(commands)
    return parser


def _add_import(commands: Any) -> None:
    parser = commands.add_parser(
        "import",
        help="make a record from the checkpoints of a run that never had the callback",
        description="Recover from saved moving statistics what they were chasing, and write it to LOGDIR/NAME. Reads "
        ".keras files, .weights.h5 files and TensorFlow checkpoints.",
    )
    parser.add_argument("checkpoints", metavar="CHECKPOINT_DIR", help="holds the checkpoints of one run")
    parser.add_argument("--out", required=True, metavar="LOGDIR", help="what you give to tensorboard --logdir")
    parser.add_argument("--run", metavar="NAME", help="name of the run (default: that of CHECKPOINT_DIR)")
    parser.add_argument("--momentum", type=float, metavar="M", help="of every layer; weights alone do not have it")
    parser.add_argument("--epsilon", type=float, metavar="E", help="of every layer; weights alone do not have it")
    parser.add_argument(
        "--steps-per-epoch",
        type=int,
        metavar="N",
        help="steps between two of the numbers in the names, where neither names nor contents carry steps",
    )
    parser.add_argument(
        "--from-scratch", action="store_true", help="the run began at step 0 with fresh moving statistics"
    )
