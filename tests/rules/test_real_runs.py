"""Real training runs: every fault is named as the cause, healthy runs raise nothing."""

from pathlib import Path
from typing import Any

import pytest

keras = pytest.importorskip("keras")

from tb_bnlens.reader import open_logdir, read_run  # noqa: E402
from tb_bnlens.report import run_report  # noqa: E402
from tests.rules.real_runs import FAULTS, HEALTHY, Build  # noqa: E402

QUICK = {"momentum 0.1", "poisoned", "domains in turn", "loop without training=True", "momentum 0.9", "batch of 4"}


def cases(names: Any) -> list[Any]:
    """The quick ones always, all with the slow tests."""
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


def report(build: Build, tmp_path: Path) -> dict[str, Any]:
    keras.utils.set_random_seed(0)
    build(str(tmp_path / "run"))
    told = run_report(read_run(open_logdir(str(tmp_path)), "", "run"))
    assert not [f["summary"] for f in told["findings"] if f["status"] == "error"]
    return told


def raised(told: dict[str, Any]) -> dict[str, str]:
    """Failures on their own account, with their severity."""
    return {
        f["rule"]: f["severity"]
        for f in told["findings"]
        if f["status"] == "fail" and not f["explained_by"] and not f["silenced"]
    }


@pytest.mark.parametrize("name", cases(FAULTS))
def test_the_cause_is_named(name: str, tmp_path: Path) -> None:
    build, rule, severities = FAULTS[name]
    told = raised(report(build, tmp_path))
    assert rule in told, told
    assert told[rule] in severities, told
    assert {r for r, severity in told.items() if severity != "info"} <= {rule}, told


@pytest.mark.parametrize("name", cases(HEALTHY))
def test_a_healthy_run_raises_nothing(name: str, tmp_path: Path) -> None:
    told = report(HEALTHY[name], tmp_path)
    assert raised(told) == {}, told["verdict"]
