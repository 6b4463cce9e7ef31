"""Frozen layers on other data: harmful or harmless."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, FROZEN_FIT, FROZEN_OFF, causes, finding, measured, run, summary
from tests.simulation import Sim, SimLayer, simulate

CAUSE = "frozen-mismatch"

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, lambda: run(FROZEN_OFF))


def test_on_other_data_harmful() -> None:
    history = run(FROZEN_OFF)
    assert causes(history) == {CAUSE: "error"}
    assert "frozen=True" in finding(history, CAUSE)["fix"]


def test_new_statistics_that_cost_accuracy_are_no_rescue() -> None:
    """The head has learned with the old ones: with others the loss is lower, and so is the accuracy."""
    right = {"inference": 0.43, "batch": 0.25, "recalibrated_all": 0.26}
    passes: dict[str, Any] = {
        "size": 100,
        "inference": 50.0,
        "batch_as_trained": 50.0,
        "batch": 1.7,
        "recalibrated": 50.0,
        "recalibrated_all": 1.7,
    }
    history = measured(run(FROZEN_OFF), metrics={k: {"accuracy": v} for k, v in right.items()}, **passes)
    found = finding(history, CAUSE)
    assert found["severity"] == "warning" and found["rescue"] == ""
    assert "they give accuracy 26.0% instead of accuracy 43.0%" in found["summary"]
    assert "recalibrate" in finding(measured(run(FROZEN_OFF), **passes), CAUSE)["rescue"]


def test_on_other_data_harmless() -> None:
    history = run(FROZEN_OFF, gain=0.0)
    assert causes(history) == {CAUSE: "info"}
    assert "does not suffer" in summary(history, CAUSE) and "check their preprocessing" in summary(history, CAUSE)
    assert finding(history, CAUSE)["fix"] == ""
    passes: dict[str, Any] = {"inference": 1.0, "batch_as_trained": 1.0, "batch": 1.01, "recalibrated_all": 1.02}
    said = summary(measured(history, recalibrated=1.0, **passes), CAUSE)
    assert "(inference loss 1, 1.02 with new statistics in these)" in said


def test_on_the_same_data_raises_nothing() -> None:
    assert causes(run(FROZEN_FIT)) == {}
    assert finding(run(CALM), CAUSE)["status"] == "not_applicable"


def test_lagging_layers_are_not_blamed_for_frozen_ones() -> None:
    frozen = [replace(FROZEN_OFF, name=f"frozen_{i}") for i in range(3)]
    history = simulate(Sim([*frozen, SimLayer("head", momentum=0.9)], steps=300, planned=300))
    assert causes(history) == {CAUSE: "error"}
