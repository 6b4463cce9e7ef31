"""``bnlens report``: the runs of a log directory, each for itself."""

from __future__ import annotations

import json
import shlex
import time
import traceback
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tb_bnlens import console
from tb_bnlens.history import History
from tb_bnlens.metadata import FORMAT, HOW_TO_RECORD
from tb_bnlens.report import markdown, run_report
from tb_bnlens.report.compare import compare
from tb_bnlens.report.runs_table import render_table, worst
from tb_bnlens.report.schema import Failure, Overview, Report
from tb_bnlens.report.style import printable
from tb_bnlens.report.text import render, render_comparison

FAULT = "BN Lens failed: "


class Refused(Exception):
    """There is nothing to report on; the message says why and what to do."""


@dataclass
class Reported:
    """What became of the runs."""

    report: Report
    histories: list[History] = field(default_factory=list)
    """Of the runs that have a report, in their order; empty unless they were requested."""
    crashed: bool = False
    """Whether BN Lens itself failed on a run."""

    def fail(self, run: str, reason: str) -> None:
        """Say that a run has no report."""
        self.report.setdefault("failures", []).append({"run": run, "reason": reason})
        console.complain("report", f"{run}: {reason}")

    @property
    def failures(self) -> list[Failure]:
        """Runs without a report."""
        return self.report.get("failures", [])


def report_runs(arguments: Namespace) -> Reported:
    """Read and judge the runs that the arguments name, and print what they ask for.

    A run that cannot be read or judged costs the others nothing.

    Raises:
        Refused: there is no such log directory, no record in it, or no run of a given name.
    """
    wanted = list(dict.fromkeys([*(arguments.run or []), *(arguments.compare or [])]))
    provider, found, unlisted = _opened(arguments.logdir, wanted)
    reported = _reported(provider, found, keep=bool(arguments.html))
    for name, reason in unlisted:
        reported.fail(name, reason)
    if arguments.compare:
        _compare(reported.report, found, arguments.compare)
    if arguments.html:
        _write_page(arguments.html, provider, reported)
    _print(arguments, reported, every=bool(wanted))
    return reported


def _opened(logdir: str, wanted: Sequence[str]) -> tuple[Any, list[Any], list[tuple[str, str]]]:
    """The log directory, the runs of these names (of no names: all), and why others cannot be listed."""
    # Imported here so that `--help` and wrong usage answer at once.
    from tb_bnlens.reader import RunNotFound, find_run, list_runs, open_logdir, shown_name

    try:
        provider = open_logdir(logdir)
        found = [find_run(provider, "", name) for name in wanted] if wanted else list(list_runs(provider))
        unlisted = {} if wanted else provider.unlisted()
    except (RunNotFound, OSError) as e:
        raise Refused(str(e.args[0] if e.args else e)) from e
    if not found and not unlisted:
        raise Refused(f"no BN Lens record under {logdir!r}; {HOW_TO_RECORD}")
    return provider, found, [(shown_name(run_id), " ".join(reasons)) for run_id, reasons in unlisted.items()]


def _compare(report: Report, found: Sequence[Any], names: Sequence[str]) -> None:
    """Add the comparison of two runs, if both have a report."""
    by_id = {run.run_id: run.name for run in found}
    runs = {run["run"]: run for run in report["runs"]}
    a, b = (runs.get(by_id.get(name, name)) for name in names)
    if a is not None and b is not None:
        report["comparison"] = compare(a, b)


def _reported(provider: Any, runs: list[Any], *, keep: bool) -> Reported:
    from tb_bnlens.reader import Unreadable, read_run

    result = Reported({"format": FORMAT, "runs": []})
    for run in runs:
        try:
            history = read_run(provider, "", run)
            report = run_report(history)
        except (Unreadable, OSError) as e:
            result.fail(run.name, str(e))
        except Exception as e:  # whatever it is, it must not cost the other runs
            result.crashed = True
            result.fail(run.name, FAULT + fault(e))
        else:
            result.report["runs"].append(report)
            # Many long runs would not fit into memory side by side.
            result.histories += [history] if keep else []
    return result


def fault(error: Exception) -> str:
    """An error that nothing expected, with the place it comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    place = ([frame for frame in frames if "tb_bnlens" in frame.filename] or frames)[-1]
    return (
        f"{type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno}). "
        "Please report it, if you can with the record"
    )


def _print(arguments: Namespace, reported: Reported, *, every: bool) -> None:
    report = reported.report
    in_full = arguments.all or "comparison" not in report
    many = not (every or arguments.all) and len(report["runs"]) + len(reported.failures) != 1
    if arguments.json:
        console.write(json.dumps(report, indent=2, allow_nan=False) + "\n")
    elif arguments.markdown and many:
        console.write(printable(markdown.render_table(report["runs"], reported.failures)))
        if report["runs"]:
            console.complain("report", "a row for each run; --run NAME prints one in full, --all every one")
    elif arguments.markdown:
        parts = [markdown.render(report)] if in_full else []
        if "comparison" in report:
            parts.append(markdown.render_comparison(report["comparison"]))
        console.write(printable("\n".join(parts)))
    elif arguments.html:
        return
    elif many:
        style = console.style()
        console.write(render_table(report["runs"], reported.failures, style))
        first = worst(report["runs"])
        if first is not None:
            command = f"bnlens report {shlex.quote(printable(arguments.logdir))} --run {shlex.quote(printable(first))}"
            console.write(f"\nA run in full: {command}\nEvery run in full: --all\n")
    else:
        style = console.style()
        parts = [render(report, style)] if report["runs"] and in_full else []
        if "comparison" in report:
            parts.append(render_comparison(report["comparison"], style))
        console.write("\n".join(parts))


def _write_page(path: str, provider: Any, reported: Reported) -> None:
    from tb_bnlens.export import Exported, page
    from tb_bnlens.reader import find_run, read_channels

    def exported(history: History, overview: Overview) -> Exported:
        run = find_run(provider, "", history.run)
        return Exported(history, overview, lambda layer: read_channels(provider, "", run, layer))

    compared = reported.report["comparison"]["runs"] if "comparison" in reported.report else ()
    runs = [exported(h, overview) for h, overview in zip(reported.histories, reported.report["runs"], strict=True)]
    try:
        size = Path(path).write_text(page(runs, time.time(), compared), encoding="utf-8")
    except OSError as e:
        raise Refused(f"{path} cannot be written ({e.strerror or e})") from e
    console.complain("report", f"wrote {path} ({size / 1000:,.0f} kB); it opens in a browser, offline")
