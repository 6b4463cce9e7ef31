"""Tests that every cause has, made for one cause: its limits, and silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tb_bnlens.history import History
from tests.diagnosis.limits import ABOVE, BELOW, cases_of
from tests.diagnosis.runs import finding, silenced


def outcome(history: History, cause: str) -> tuple[str, str, str, str]:
    """What a limit can change: status, severity, fix, and whether batches alternate."""
    found: Any = finding(history, cause)
    assert found["status"] != "error", found["summary"]
    return found["status"], found["severity"], found["fix"], "alternate" if "alternate" in found["summary"] else ""


def limits_of(cause: str) -> Callable[[str], None]:
    """A test that runs just below and just above each limit of a cause are judged differently."""

    @pytest.mark.parametrize("limit", cases_of(cause))
    def test_a_limit_decides_at_its_value(limit: str) -> None:
        build = cases_of(cause)[limit]
        assert outcome(build(BELOW), cause) != outcome(build(ABOVE), cause)

    return test_a_limit_decides_at_its_value


def silence_of(cause: str, faulty: Callable[[], History]) -> Callable[[], None]:
    """A test that the cause, silenced, counts for nothing, and that the verdict says so."""

    def test_silenced() -> None:
        history = faulty()
        before = finding(history, cause)
        assert before["status"] == "fail" and not before["silenced"]
        report = silenced(history, cause)
        found = next(f for f in report["findings"] if f["rule"] == cause)
        assert (found["status"], found["severity"], found["silenced"]) == ("fail", before["severity"], True)
        assert any("silenced" in reason and found["title"] in reason for reason in report["reasons"])
        assert "No BatchNorm problem" not in report["verdict"]
        assert all(cause not in layer["findings"] for layer in report["layers"])

    return test_silenced
