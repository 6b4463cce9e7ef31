"""What a check gives: a report of one run, printed, and a record where one is wanted. For any framework."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tb_bnlens import record
from tb_bnlens.analysis.enough import is_calm, is_grave, leaves_nothing
from tb_bnlens.capture.adapter import ModelAdapter
from tb_bnlens.capture.events import EventFile, exists
from tb_bnlens.checking.measure import Checked, looks
from tb_bnlens.history import History
from tb_bnlens.metadata import RUN_SUFFIX
from tb_bnlens.report.build import run_report
from tb_bnlens.report.encoding import encodable
from tb_bnlens.report.notebook import as_html
from tb_bnlens.report.schema import Finding, Overview, Report
from tb_bnlens.report.shown import counts
from tb_bnlens.report.text import render_run, render_verdict


@dataclass(frozen=True, repr=False)
class Check:
    """What ``check`` has found. ``print`` shows the whole report, and a notebook a short form of it."""

    report: Overview
    """The report of one run, as `docs/report.md` describes it."""
    log_dir: str | None = None
    """Where the record was written, None where it was not."""

    @property
    def severity(self) -> str:
        """``"error"``, ``"warning"``, ``"info"`` or ``"none"``."""
        return self.report["severity"]

    @property
    def verdict(self) -> str:
        """What the losses say, and why."""
        return self.report["verdict"]

    @property
    def findings(self) -> list[Finding]:
        """The causes that were found, the most severe first; ``report["findings"]`` has every cause that was judged."""
        return [finding for finding in self.report["findings"] if counts(finding)]

    def as_report(self) -> Report:
        """The report with this run alone, as ``bnlens report --json`` prints it."""
        return {"format": self.report["format"], "runs": [self.report]}

    def __str__(self) -> str:
        return render_run(self.report)

    def __repr__(self) -> str:
        return f"<Check {self.severity}: {self.verdict}>"

    def _repr_html_(self) -> str:
        return as_html(self.report)


def judged(
    adapter: ModelAdapter,
    name: str,
    batches: Sequence[Any],
    validation: Sequence[Any],
    *,
    log_dir: str | os.PathLike[str] | None,
    tolerance: float,
    steps: int,
    quiet: bool,
) -> Check:
    """Measure a built model, report on it, and write the record.

    Args:
        adapter: the model.
        name: of the model, for a report without a record.
        batches: training data, at least one batch.
        validation: validation data.
        log_dir: where the record goes, None for none.
        tolerance: relative error of the moving statistics that counts as converged.
        steps: training steps that the model has had, 0 where that is not known.
        quiet: print nothing.
    """
    directory = None if log_dir is None else _free(os.fspath(log_dir).rstrip("/"))
    run = name if directory is None else os.path.basename(directory)
    for found in looks(adapter, run, batches, validation, tolerance, steps):
        report = run_report(found.history)
        if _suffices(found.history, report):
            break
    if directory is not None:
        _write(found, directory)
    result = Check(report, directory)
    if not quiet:
        print(encodable(render_verdict(result.report), sys.stdout), end="")
    return result


def _suffices(history: History, report: Overview) -> bool:
    """Whether more batches would find no more: nothing is wrong, or what is wrong is explained in full."""
    if report["severity"] in ("none", "info"):
        return is_calm(history)
    worst = next(finding for finding in report["findings"] if counts(finding))
    return is_grave(history) and leaves_nothing(history, worst["rescue_loss"])


def require_arguments(batches: int, batch_size: int, tolerance: float) -> None:
    """Refuse arguments out of range.

    Raises:
        ValueError: the message says what is expected.
    """
    for name, value in (("batches", batches), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} is {value!r}; expected 1 or more")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance is {tolerance!r}; it is a relative error between 0 and 1, e.g. 0.1")


def _free(log_dir: str) -> str:
    """The directory itself, or the next free one inside where it holds a record."""
    inside = (f"{log_dir}/check" if number == 1 else f"{log_dir}/check-{number}" for number in itertools.count(1))
    return next(d for d in itertools.chain([log_dir], inside) if not exists(f"{d}/{RUN_SUFFIX}"))


def _write(found: Checked, directory: str) -> None:
    history = found.history
    parts: list[record.Part | record.Scalar] = [
        record.manifest(history.manifest),
        *(record.layers(table) for table in history.layers),
        *(record.channels(index, channels.values[0]) for index, channels in enumerate(found.channels)),
        *(record.evidence(evidence) for evidence in history.evidence),
    ]
    for values in history.losses:
        table, scalars = record.losses(values)
        parts += [table, *scalars]
    file = EventFile(f"{directory}/{RUN_SUFFIX}")
    for part in parts:
        file.write(history.last_step or 0, part)
    file.close()
