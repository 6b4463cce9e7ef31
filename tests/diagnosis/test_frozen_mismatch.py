"""Frozen layers on other data: harmful or harmless."""

from __future__ import annotations

from dataclasses import replace

from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, FROZEN_FIT, FROZEN_OFF, causes, finding, run, summary
from tests.simulation import Sim, SimLayer, simulate

CAUSE = "frozen-mismatch"

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, lambda: run(FROZEN_OFF))


def test_on_other_data_harmful() -> None:
    history = run(FROZEN_OFF)
    assert causes(history) == {CAUSE: "error"}
    assert "frozen=True" in finding(history, CAUSE)["fix"]


def test_on_other_data_harmless() -> None:
    history = run(FROZEN_OFF, gain=0.0)
    assert causes(history) == {CAUSE: "info"}
    assert "does not suffer" in summary(history, CAUSE)
    assert finding(history, CAUSE)["fix"] == ""


def test_on_the_same_data_raises_nothing() -> None:
    assert causes(run(FROZEN_FIT)) == {}
    assert finding(run(CALM), CAUSE)["status"] == "not_applicable"


def test_lagging_layers_are_not_blamed_for_frozen_ones() -> None:
    frozen = [replace(FROZEN_OFF, name=f"frozen_{i}") for i in range(3)]
    history = simulate(Sim([*frozen, SimLayer("head", momentum=0.9)], steps=300, planned=300))
    assert causes(history) == {CAUSE: "error"}
