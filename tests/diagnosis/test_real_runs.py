"""Real training runs: every fault is named as the cause, healthy runs raise nothing."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

keras = pytest.importorskip("keras")

from tb_bnlens.reader import open_logdir, read_run  # noqa: E402
from tb_bnlens.report import run_report  # noqa: E402
from tb_bnlens.report.schema import Overview  # noqa: E402
from tests.diagnosis.faults import FAULTS, Fault  # noqa: E402
from tests.diagnosis.healthy import HEALTHY  # noqa: E402
from tests.diagnosis.real_runs import Build, Trained, blobs, trained  # noqa: E402

QUICK = {"loop without training=True", "momentum 0.9", "batch of 4"}
"""Three more are quick; test_fixes.py names their cause before it runs the fix."""


def cases(names: Any) -> list[Any]:
    """The quick ones always, all with the slow tests."""
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


def record(build: Build, directory: Path, seed: int = 0, **options: Any) -> tuple[Overview, Trained]:
    """Train so, and report on the record; with the model and the data as they are then.

    The last measurement has all the time that it wants: a busy machine would judge fewer batches.
    """
    keras.utils.set_random_seed(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tb_bnlens.capture.prober.JUDGEMENT_SECONDS", math.inf)
        made = build(str(directory / "run"), **options)
    told = run_report(read_run(open_logdir(str(directory)), "", "run"))
    assert not [f["summary"] for f in told["findings"] if f["status"] == "error"]
    return told, made


def raised(told: Overview) -> Mapping[str, str]:
    """Failures on their own account, with their severity."""
    return {
        f["rule"]: f["severity"]
        for f in told["findings"]
        if f["status"] == "fail" and not f["explained_by"] and not f["silenced"]
    }


def assert_named(report: Overview, fault: Fault) -> None:
    """The fault's own rule fails, and no other one that is more than a note."""
    told = raised(report)
    assert told.get(fault.rule) in fault.severities, told
    assert {rule for rule, severity in told.items() if severity != "info"} <= {fault.rule}, told


@pytest.mark.parametrize("name", cases(FAULTS))
def test_the_cause_is_named(name: str, tmp_path: Path) -> None:
    assert_named(record(FAULTS[name].build, tmp_path)[0], FAULTS[name])


@pytest.mark.parametrize("name", cases(HEALTHY))
def test_a_healthy_run_raises_nothing(name: str, tmp_path: Path) -> None:
    told, _ = record(HEALTHY[name], tmp_path)
    assert raised(told) == {}, told["verdict"]


def test_a_busy_machine_judges_as_many_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tb_bnlens.capture.prober._seconds", lambda *_: 1e6)
    told, _ = record(lambda run: trained(run, blobs(512), 0.9, 1), tmp_path)
    assert told["losses"]["batches"] == 16
