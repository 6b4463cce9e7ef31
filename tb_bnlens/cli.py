"""The command line: ``bnlens``, or ``python -m tb_bnlens``.

- ``report LOGDIR`` prints the report. It needs no TensorFlow.
- ``check MODEL.keras --data MODULE:FUNCTION`` judges a saved model. It needs TensorFlow.
- ``import CHECKPOINT_DIR --out LOGDIR`` makes a record from saved weights. It needs TensorFlow.

Exit codes: 0 if nothing was found at or above ``--fail-on`` (always, without that option), 1 if something was, 2 for
wrong usage, for a log directory, run, model or data that cannot be read, and with ``--fail-on`` for a model that
``check`` cannot judge, 3 if BN Lens itself failed on a run. Where several apply, 1 comes before 3, and 3 before 2.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from tb_bnlens import __version__, console
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.report.schema import Report
from tb_bnlens.report.style import printable
from tb_bnlens.report.text import render

OK, FOUND, UNREADABLE, CRASHED = 0, 1, 2, 3
INTERRUPTED = 130
"""As shells count: 128 and SIGINT."""
PYTORCH_ENDINGS = (".pt", ".pth", ".safetensors")
CHECK_PYTORCH = (
    "{!r} is named like PyTorch's weights, and this command reads models of Keras; "
    "in Python, load them into the model and call tb_bnlens.torch.check(model, data)"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    console.prepare()
    arguments = _parser().parse_args(argv)
    commands: dict[str, Callable[[argparse.Namespace], int]] = {"report": _report, "check": _check, "import": _import}
    try:
        return commands[arguments.command](arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # an exit code of 1 would say that something was found
        from tb_bnlens.reporting import FAULT, fault

        console.complain(arguments.command, FAULT + fault(error))
        return CRASHED


def _report(arguments: argparse.Namespace) -> int:
    from tb_bnlens.reporting import Refused, report_runs

    try:
        reported = report_runs(arguments)
    except Refused as error:
        console.complain("report", str(error))
        return UNREADABLE
    if _found(arguments, reported.report):
        return FOUND
    return CRASHED if reported.crashed else UNREADABLE if reported.failures else OK


def _check(arguments: argparse.Namespace) -> int:
    if arguments.model.endswith(PYTORCH_ENDINGS):
        console.complain("check", CHECK_PYTORCH.format(arguments.model))
        return UNREADABLE
    try:
        with console.quiet_start():
            from tb_bnlens.checking.command import CannotCheck, check_file

        found = check_file(arguments.model, arguments.data, arguments.log_dir, arguments.batches)
    except ModuleNotFoundError as e:
        return _lacks("check", e, ("tensorflow", "keras"), "a model needs it to run")
    except CannotCheck as e:
        console.complain("check", str(e))
        return UNREADABLE
    report = found.as_report()
    console.write(
        json.dumps(report, indent=2, allow_nan=False) + "\n" if arguments.json else render(report, console.style())
    )
    if _found(arguments, report):
        return FOUND
    losses = report["runs"][0]["losses"]
    if arguments.fail_on and losses["inference"] is None:
        reason = losses["not_evaluated"].get("losses", "the losses were not evaluated")
        console.complain("check", f"the model is not judged: {reason}")
        return UNREADABLE
    return OK


def _import(arguments: argparse.Namespace) -> int:
    with console.quiet_start():
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
        return _lacks("import", e, ("tensorflow", "keras", "h5py", "torch"), "reading checkpoints needs it")
    except (CannotImport, OSError) as e:
        console.complain("import", str(e))
        return UNREADABLE
    for note in series.notes:
        console.complain("import", note)
    count, first, last = len(series.checkpoints), series.steps[0], series.steps[-1]
    console.write(
        f"{count} checkpoint{'' if count == 1 else 's'}, steps {first:,} to {last:,}. Now:\n"
        f"bnlens report {shlex.quote(printable(arguments.out))}\n"
    )
    return OK


def _lacks(command: str, error: ModuleNotFoundError, known: Sequence[str], why: str) -> int:
    if error.name not in known:
        raise error
    package = "torch" if error.name == "torch" else "'tensorboard-plugin-bnlens[tensorflow]'"
    console.complain(command, f"{error.name} is not installed, and {why}; run: pip install {package}")
    return UNREADABLE


def _found(arguments: argparse.Namespace, report: Report) -> bool:
    if not arguments.fail_on:
        return False
    limit = Severity[arguments.fail_on.upper()]
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
        description="Print the verdict, the findings and the layers of a run under LOGDIR, or a table of several runs.",
        epilog="Exit codes: 0 if nothing was found at or above --fail-on (always, without it), 1 if something was, "
        "2 for wrong usage or what cannot be read, 3 if BN Lens itself failed on a run; the others are reported.",
    )
    report.add_argument(
        "logdir",
        metavar="LOGDIR",
        help="the directory given to tensorboard --logdir; a URL (s3://, gs://) where boto3 or fsspec is installed",
    )
    form = report.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print Markdown, for a comment on an issue")
    form.add_argument("--html", metavar="FILE", help="write the tab to one file, which opens in a browser, offline")
    report.add_argument("--run", action="append", metavar="R", help="report on this run, in full; may be repeated")
    report.add_argument(
        "--all",
        action="store_true",
        help="report on every run in full, where several would be a table (text and Markdown)",
    )
    report.add_argument(
        "--fail-on", choices=["error", "warning"], help="exit with 1 if this severity or worse is found"
    )
    report.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="print what changed from run A to run B; with --all, both runs in full before it",
    )
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
        "--fail-on",
        choices=["error", "warning"],
        help="exit with 1 if this severity or worse is found, and with 2 if the model cannot be judged",
    )


def _add_import(commands: Any) -> None:
    parser = commands.add_parser(
        "import",
        help="make a record from the checkpoints of a run that did not use the callback",
        description="Recover batch statistics from saved moving statistics, and write a record to LOGDIR/NAME. Reads "
        ".keras files, .weights.h5 files, TensorFlow checkpoints, and PyTorch's .safetensors, .pt and .pth files.",
    )
    parser.add_argument("checkpoints", metavar="CHECKPOINT_DIR", help="directory with the checkpoints of one run")
    parser.add_argument("--out", required=True, metavar="LOGDIR", help="the directory given to tensorboard --logdir")
    parser.add_argument("--run", metavar="NAME", help="name of the run (default: the name of CHECKPOINT_DIR)")
    parser.add_argument(
        "--momentum",
        type=float,
        metavar="M",
        help="momentum of every layer, for files that hold weights only; for PyTorch's files it is PyTorch's momentum",
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
