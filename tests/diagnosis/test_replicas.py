"""Replicas whose statistics differ, on two virtual devices, and the printed fix."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.diagnosis.test_real_runs import raised

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_replicas_that_see_other_data_are_named_and_the_fix_cures(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.diagnosis.replicas", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    faulty, repaired = json.loads(done.stdout.splitlines()[-1])
    assert faulty["replicas"] == 2
    assert raised(faulty)["replica-spread"] in ("warning", "error")
    assert {rule for rule, severity in raised(faulty).items() if severity != "info"} == {"replica-spread"}
    assert set(raised(repaired).values()) <= {"info"}
