"""A record that the recorder of format 1 wrote stays readable.

``fixtures/format1`` is 64 steps of a dense network with two BatchNorm layers, one at a momentum of 0.999. It is never
written again: a later format gets another fixture.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tb_bnlens.reader import list_runs, read_channels, read_run
from tb_bnlens.report import run_report

FORMAT1 = Path(__file__).parent / "fixtures" / "format1"


def test_it_reads_as_it_did(provider: Callable[[Path], Any]) -> None:
    data = provider(FORMAT1)
    assert [run.name for run in list_runs(data)] == ["exp"]
    history = read_run(data, "", "exp")
    assert history.problems == ()
    assert (len(history.steps), len(history.loss_steps), history.last_step) == (62, 37, 64)
    assert [(layer.name, layer.channels, layer.axis) for layer in history.manifest.layers] == [
        ("first", 8, -1),
        ("second", 4, -1),
    ]
    assert history.manifest.batch_size == 16 and history.manifest.planned_steps == 64
    assert history.last("momentum").tolist() == pytest.approx([0.999, 0.9])
    assert history.last("distance_rms").tolist() == pytest.approx([2.506473, 0.006163146])
    assert history.last("updates").tolist() == [64, 64]
    assert history.loss("inference")[-1] == pytest.approx(6.433427)
    assert history.loss("batch")[-1] == pytest.approx(0.09143247)
    assert history.loss("inference", "validation")[-1] == pytest.approx(6.685803)
    channels = read_channels(data, "", "exp", 0)
    assert channels.values.shape == (15, 4, 8)
    assert channels.steps[-1] == 64


def test_its_fault_is_still_found(provider: Callable[[Path], Any]) -> None:
    report = run_report(read_run(provider(FORMAT1), "", "exp"))
    assert report["severity"] == "error"
    found = {f["rule"]: f["layers"] for f in report["findings"] if f["status"] == "fail"}
    assert found["momentum-too-high"] == ["first"]
