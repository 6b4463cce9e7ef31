"""The command line: ``bnlens``, or ``python -m tb_bnlens``.

- ``report LOGDIR`` prints the report. It needs no TensorFlow.
- ``check MODEL.keras --data MODULE:FUNCTION`` judges a saved model. It needs TensorFlow.
- ``import CHECKPOINT_DIR --out LOGDIR`` makes a record from saved weights. It needs TensorFlow.

Exit codes: 0 if nothing was found at or above ``--fail-on`` (always, without that option), 1 if something was, 2 for
wrong usage and for a log directory, run, model or data that cannot be read.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tb_bnlens import __version__
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.history import History
from tb_bnlens.report import build_report, markdown
from tb_bnlens.report.compare import compare
from tb_bnlens.report.schema import Overview, Report
from tb_bnlens.report.text import printable as printable
from tb_bnlens.report.text import render, render_comparison

OK, FOUND, UNREADABLE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "import":
        return _import(arguments)
    if arguments.command == "check":
        return _check(arguments)
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
        by_name = {run["run"]: run for run in report["runs"]}
        pair = [by_name.get(name) or report["runs"][wanted.index(name)] for name in arguments.compare or ()]
        if arguments.html:
            _write_page(arguments.html, provider, histories, report, [run["run"] for run in pair])
    except (RunNotFound, Unreadable, OSError) as e:
        print(f"tb_bnlens report: {e.args[0] if e.args else e}", file=sys.stderr)
        return UNREADABLE
    difference = None
    if pair:
        difference = compare(*pair)
        report["comparison"] = difference
    if arguments.json:
        _print(json.dumps(report, indent=2, allow_nan=False) + "\n")
    elif arguments.markdown:
        _print(printable(markdown.render(report)))
        if difference:
            _print("\n" + printable(markdown.render_comparison(difference)))
    elif not arguments.html:
        _print(printable(render(report)))
        if difference:
            _print("\n" + printable(render_comparison(difference)))
    return FOUND if arguments.fail_on and _reaches(report, Severity[arguments.fail_on.upper()]) else OK


def _check(arguments: argparse.Namespace) -> int:
    try:
        from tb_bnlens.checking.command import CannotCheck, check_file

        found = check_file(arguments.model, arguments.data, arguments.log_dir, arguments.batches)
    except ModuleNotFoundError as e:
        if e.name not in ("tensorflow", "keras"):
            raise
        print(
            f"tb_bnlens check: {e.name} is not installed, and a model needs it to run; run: "
            "pip install 'tensorboard-plugin-bnlens[tensorflow]'",
            file=sys.stderr,
        )
        return UNREADABLE
    except CannotCheck as e:
        print(f"tb_bnlens check: {printable(str(e))}", file=sys.stderr)
        return UNREADABLE
    report = found.as_report()
    _print(json.dumps(report, indent=2, allow_nan=False) + "\n" if arguments.json else str(found))
    return FOUND if arguments.fail_on and _reaches(report, Severity[arguments.fail_on.upper()]) else OK


def _write_page(
    path: str, provider: Any, histories: Sequence[History], report: Report, compared: Sequence[str]
) -> None:
    from tb_bnlens.export import Exported, page
    from tb_bnlens.reader import find_run, read_channels

    def exported(history: History, overview: Overview) -> Exported:
        run = find_run(provider, "", history.run)
        return Exported(history, overview, lambda layer: read_channels(provider, "", run, layer))

    runs = [exported(history, overview) for history, overview in zip(histories, report["runs"], strict=True)]
    size = Path(path).write_text(page(runs, time.time(), compared), encoding="utf-8")
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
    _print(
        f"{count} checkpoint{'' if count == 1 else 's'}, steps {first:,} to {last:,}. Now:\n"
        f"python -m tb_bnlens report {shlex.quote(arguments.out)}\n"
    )
    return OK


def _print(text: str) -> None:
    """Write to standard output; who reads it may stop early, as ``head`` does."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes again when it ends, and would fail then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
    _add_check(commands)
    _add_import(commands)
    return parser


def _add_check(commands: Any) -> None:
    parser = commands.add_parser(
        "check",
        help="judge a saved model on data, without training",
        description="Load MODEL with Keras, measure it on batches of the data, and print the report. Nothing in the "
        "file changes.",
    )
    parser.add_argument("model", metavar="MODEL", help="a .keras file, or what else keras.models.load_model reads")
    parser.add_argument(
        "--data",
        required=True,
        metavar="MODULE:FUNCTION",
        help="a function without arguments that gives training data: a tf.data.Dataset, a PyDataset, arrays (x, y), or "
        "an iterable of batches. MODULE is imported first, so it may also define the custom objects of the model",
    )
    parser.add_argument("--log-dir", metavar="DIR", help="write a record, which the tab and report show as a run")
    parser.add_argument("--batches", type=int, default=24, metavar="N", help="the largest number of batches to use")
    parser.add_argument("--json", action="store_true", help="print JSON, as report does")
    parser.add_argument(
        "--fail-on", choices=["error", "warning"], help="exit with 1 if this severity or worse is found"
    )


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
