"""``check``: the model in hand, trained anywhere or loaded from disk."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tb_bnlens import summary
from tb_bnlens.checking.data import spread_batches
from tb_bnlens.checking.measure import Checked, measured
from tb_bnlens.frameworks.support import require, unsupported
from tb_bnlens.metadata import RUN_SUFFIX
from tb_bnlens.report.build import run_report
from tb_bnlens.report.notebook import as_html
from tb_bnlens.report.schema import Finding, Overview, Report
from tb_bnlens.report.summary import counts
from tb_bnlens.report.text import render_run, render_verdict

VALIDATION_BATCHES = 8


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


def check(
    model: Any,
    data: Any,
    log_dir: str | None = None,
    *,
    loss: Callable[..., Any] | None = None,
    batches: int = 24,
    validation_data: Any = None,
    tolerance: float = 0.1,
    batch_size: int = 32,
    quiet: bool = False,
) -> Check:
    """Judge a model at its present weights, trained anywhere or loaded from disk::

        model = keras.models.load_model("model.keras")
        found = tb_bnlens.check(model, train_ds)      # prints the verdict
        found.severity, found.verdict, found.report

    The model runs on some batches with batch statistics, with its moving statistics, and with what would undo each
    cause. Nothing in it changes: no weight, no optimizer, metric or random seed. Use *training* data, in batches like
    those of training, since the statistics of a batch depend on its size.

    One moment does not show what takes a course over time. Causes such as drift are listed as not evaluated; record the
    training with ``BNLens`` to have them judged.

    Args:
        model: a built Keras model. Loss and metrics come from ``compile``.
        data: a ``tf.data.Dataset``, a ``PyDataset``, arrays ``(x, y)`` or ``(x, y, sample_weight)``, or an iterable
            of batches. Batches are spread over the data where its length is known; rows of arrays are drawn at random.
        log_dir: TensorBoard run directory for a record, which the tab and ``bnlens report`` show as a run. Where it
            holds a record already, the check goes to the next free directory ``check``, ``check-2``, ... inside.
        loss: ``loss(y_true, y_pred)``, for a model that is not compiled. Without either, losses are not evaluated.
        batches: the largest number of batches to use.
        validation_data: measured besides, likewise; at most 8 batches.
        tolerance: relative error of the moving statistics that counts as converged.
        batch_size: of batches that are cut from arrays.
        quiet: print nothing.

    Returns:
        A ``Check``: ``severity``, ``verdict``, ``findings`` and ``report``.

    Raises:
        NotImplementedError: not a Keras 3 model on TensorFlow.
        ValueError: an argument out of range, a model that is not built, or data without a batch.
        TypeError: data of another kind. What the model itself raises on the data is passed on.
    """
    require(unsupported(model), "check")
    if not isinstance(model, keras.Model):
        raise ValueError(f"model is a {type(model).__name__}; expected a keras.Model")
    if not model.built:
        raise ValueError(f"The model {model.name!r} is not built; call it on a batch first")
    if batches < 1 or batch_size < 1:
        raise ValueError(f"batches is {batches!r} and batch_size {batch_size!r}; expected 1 or more")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance is {tolerance!r}; it is a relative error between 0 and 1, e.g. 0.1")
    directory = None if log_dir is None else _free(os.fspath(log_dir).rstrip("/"))
    found = measured(
        model,
        model.name if directory is None else os.path.basename(directory),
        spread_batches(data, batches, batch_size),
        () if validation_data is None else spread_batches(validation_data, VALIDATION_BATCHES, batch_size),
        loss,
        tolerance,
    )
    if directory is not None:
        _write(found, directory)
    result = Check(run_report(found.history), directory)
    if not quiet:
        print(render_verdict(result.report), end="")
    return result


def _free(log_dir: str) -> str:
    """The directory itself, or the next free one inside where it holds a record."""
    inside = (f"{log_dir}/check" if number == 1 else f"{log_dir}/check-{number}" for number in itertools.count(1))
    return next(d for d in itertools.chain([log_dir], inside) if not tf.io.gfile.exists(f"{d}/{RUN_SUFFIX}"))


def _write(found: Checked, directory: str) -> None:
    history = found.history
    step = history.last_step or 0
    writer = tf.summary.create_file_writer(f"{directory}/{RUN_SUFFIX}")
    with writer.as_default():
        summary.manifest(history.manifest, step)
        for table in history.layers:
            summary.layers(table, step)
        for index, channels in enumerate(found.channels):
            summary.channels(index, channels.values[0], step)
        for table in history.losses:
            summary.losses(table, step)
        for evidence in history.evidence:
            summary.evidence(evidence, step)
    writer.close()
