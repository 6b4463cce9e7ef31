"""The line at the end of ``fit``: what the record says, and how to open the tab."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from tb_bnlens.metadata import RUN_SUFFIX
from tb_bnlens.reader import list_runs, open_logdir, read_run
from tb_bnlens.report.build import run_report
from tb_bnlens.report.encoding import encodable
from tb_bnlens.report.shown import counts
from tb_bnlens.report.style import MARKS, printable

MOST_BYTES = 32 * 2**20
"""A larger record is not read back: reading and judging it takes more than a second or two."""
PROMISE = re.compile(r"^# (.*\(measured.*\))$", re.MULTILINE)
CALL = re.compile(r"^tb_bnlens\.[\w.]+\(.*?\)", re.MULTILINE)


def closing_line(log_dir: str) -> str:
    """Read the record of a run back and say in one line how it stands.

    Args:
        log_dir: TensorBoard run directory, without the suffix ``bn_lens``.
    """
    how = f"tensorboard --logdir {shlex.quote(log_dir)}"
    directory = f"{log_dir}/{RUN_SUFFIX}"
    if not os.path.isdir(directory) or _bytes(directory) > MOST_BYTES:
        return printable(f"BN Lens: recorded. To see the verdict: {how}")
    provider = open_logdir(directory)
    report = run_report(read_run(provider, "", list_runs(provider)[0]))
    parts = [f"{MARKS[report['severity']]} {report['headline']}", *_cause(report), f"More: {how}"]
    return printable(f"BN Lens: {' '.join(parts)}".replace("\n", " "))


def print_closing_line(log_dir: str) -> None:
    """Print it, whatever the encoding of standard output."""
    print(encodable(closing_line(log_dir), sys.stdout), flush=True)


def _cause(report: Mapping[str, Any]) -> list[str]:
    """The most severe cause, and the rescue with the loss that it gives; the first note where nothing is severe."""
    found = [f for f in report["findings"] if counts(f) and f["severity"] in ("error", "warning")]
    if not found:
        notes = [f["title"] for f in report["findings"] if counts(f)]
        return [f"Note: {notes[0]}."] if notes else []
    parts = [f"{found[0]['title']}."]
    call, gives = CALL.search(found[0]["rescue"]), PROMISE.search(found[0]["rescue"])
    if call:
        parts.append(f"Rescue: {call[0]}{f', {gives[1]}' if gives else ''}.")
    return parts


def _bytes(directory: str) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(directory) if entry.is_file())
