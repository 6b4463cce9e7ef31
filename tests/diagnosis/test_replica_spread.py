"""Replicas whose moving statistics differ."""

from __future__ import annotations

from tests.diagnosis.checks import silence_of
from tests.diagnosis.runs import CALM, causes, finding, replicated, run

CAUSE = "replica-spread"


test_silenced = silence_of(CAUSE, lambda: replicated(run(CALM, noise_penalty=2.0, overrides={"replica_spread": 1.2})))


def test_replicas_that_differ() -> None:
    history = replicated(run(CALM, noise_penalty=2.0, overrides={"replica_spread": 1.2}))
    assert causes(history).keys() == {CAUSE}
    assert "2 replicas" in finding(history, CAUSE)["summary"]


def test_replicas_that_agree() -> None:
    assert causes(replicated(run(CALM, overrides={"replica_spread": 0.02}))) == {}
    assert finding(run(CALM), CAUSE)["status"] == "not_applicable"
