"""The command line: ``bnlens``, or ``python -m tb_bnlens``.

- ``report LOGDIR`` prints the report. It needs no TensorFlow.
- ``import CHECKPOINT_DIR --out LOGDIR`` makes a record from saved weights. It needs TensorFlow.

Exit codes: 0 if nothing was found at or above ``--fail-on`` (always, without that option), 1 if something was, 2 for
wrong usage and for a log directory or run that cannot be read.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tb_bnlens import __version__
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.history import History
from tb_bnlens.report import build_report, markdown
from tb_bnlens.report.compare import compare
from tb_bnlens.report.schema import Overview, Report
from tb_bnlens.report.text import render, render_comparison

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
        histories = [read_run(provider, "", run) for run in names]
        report = build_report(histories)
        if arguments.html:
            _write_page(arguments.html, provider, histories, report)
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
    elif arguments.markdown:
        print(printable(markdown.render(report)), end="")
    elif not arguments.html:
        print(printable(render(report)), end="")
        if difference:
            print("\n" + printable(render_comparison(difference)), end="")
    return FOUND if arguments.fail_on and _reaches(report, Severity[arguments.fail_on.upper()]) else OK


def _write_page(path: str, provider: Any, histories: Sequence[History], report: Report) -> None:
    from tb_bnlens.export import Exported, page
    from tb_bnlens.reader import find_run, read_channels

    def exported(history: History, overview: Overview) -> Exported:
        run = find_run(provider, "", history.run)
        return Exported(history, overview, lambda layer: read_channels(provider, "", run, layer))

    runs = [exported(history, overview) for history, overview in zip(histories, report["runs"], strict=True)]
    size = Path(path).write_text(page(runs, time.time()), encoding="utf-8")
    print(f"tb_bnlens report: wrote {path} ({size / 1000:,.0f} kB); it opens in a browser, offline", file=sys.stderr)


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
    # Category C holds control characters, escapes, marks that change the direction of text, and lone surrogates. A lone
    # surrogate stands for a byte of a file name that is not text, and cannot be printed at all.
    return "".join(c if c == "\n" or not unicodedata.category(c).startswith("C") else ascii(c)[1:-1] for c in text)


def _reaches(report: Report, limit: Severity) -> bool:
    return any(Severity[run["severity"].upper()] >= limit for run in report["runs"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bnlens",
        description="Find out why a network is fine in training mode and broken at inference. "
        "python -m tb_bnlens is the same command.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser(
        "report",
        help="report on the BatchNorm layers of the runs in a log directory",
        description="Print the verdict, the findings and the layers of each run under LOGDIR.",
        epilog="Exit codes: 0 if nothing was found at or above --fail-on (always, without it), 1 if something was, "
        "2 for wrong usage or if nothing can be read.",
    )
    report.add_argument("logdir", metavar="LOGDIR", help="the directory given to tensorboard --logdir")
    form = report.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print Markdown, for a comment on an issue")
    form.add_argument("--html", metavar="FILE", help="write the tab to one file, which opens in a browser, offline")
    report.add_argument("--run", action="append", metavar="R", help="report only on this run; may be repeated")
    report.add_argument(
        "--fail-on", choices=["error", "warning"], help="exit with 1 if this severity or worse is found"
    )
    report.add_argument("--compare", nargs=2, metavar=("A", "B"), help="also print what changed from run A to run B")
    _add_import(commands)
    return parser


def _add_import(commands: Any) -> None:
    parser = commands.add_parser(
        "import",
        help="make a record from the checkpoints of a run that did not use the callback",
        description="Recover batch statistics from saved moving statistics, and write a record to LOGDIR/NAME. Reads "
        ".keras files, .weights.h5 files and TensorFlow checkpoints.",
    )
    parser.add_argument("checkpoints", metavar="CHECKPOINT_DIR", help="directory with the checkpoints of one run")
    parser.add_argument("--out", required=True, metavar="LOGDIR", help="the directory given to tensorboard --logdir")
    parser.add_argument("--run", metavar="NAME", help="name of the run (default: the name of CHECKPOINT_DIR)")
    parser.add_argument(
        "--momentum", type=float, metavar="M", help="momentum of every layer, for files that hold weights only"
    )
    parser.add_argument(
        "--epsilon", type=float, metavar="E", help="epsilon of every layer, for files that hold weights only"
    )
    parser.add_argument(
        "--steps-per-epoch",
        type=int,
        metavar="N",
        help="steps per epoch, where the file names count epochs and nothing else gives the step",
    )
    parser.add_argument(
        "--from-scratch",
        action="store_true",
        help="the run started at step 0 with freshly initialized moving statistics",
    )
