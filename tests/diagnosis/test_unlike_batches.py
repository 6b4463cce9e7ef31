"""Batches that are sorted, or domains that alternate."""

from __future__ import annotations

from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, causes, finding, run, summary
from tests.simulation import SimLayer

CAUSE = "unlike-batches"
TURNS = SimLayer(samples=32, between=1.0)
SORTED = SimLayer(samples=32, between=1.0, block=60)

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, lambda: run(TURNS, gain=2.0))


def test_batches_that_alternate() -> None:
    history = run(TURNS, gain=2.0)
    assert causes(history) == {CAUSE: "error"}
    assert "alternate" in summary(history, CAUSE)


def test_batches_that_are_sorted() -> None:
    history = run(SORTED, gain=2.0)
    assert CAUSE in causes(history)
    assert "drift" not in causes(history)
    assert "look sorted" in summary(history, CAUSE)


def test_without_a_gap_it_is_a_note() -> None:
    assert causes(run(TURNS, gain=0.0)) == {CAUSE: "info"}


def test_batches_of_one_kind_pass() -> None:
    assert finding(run(CALM), CAUSE)["status"] == "pass"
