"""Dropout and other training-only layers."""

from __future__ import annotations

from typing import Any

from tb_bnlens.metadata import LAYER_INDEX
from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, FROZEN_OFF, behind, causes, finding, measured, of_torch, run
from tests.simulation import Sim, SimLayer, simulate

CAUSE = "dropout-gap"

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, lambda: run(CALM, dropout=0.6))


def test_dropout_is_not_batchnorm() -> None:
    history = run(CALM, dropout=0.6)
    assert causes(history) == {CAUSE: "info"}
    assert "evaluate() with evaluate()" in finding(history, CAUSE)["next"]
    assert causes(run(CALM, dropout=0.05)) == {}


def test_a_metric_that_tells_dropout_is_the_evidence() -> None:
    passes: dict[str, Any] = {"inference": 1.0, "batch": 1.0, "recalibrated": 1.0, "training": 1.1}
    accuracy = {name: {"accuracy": 0.5 if name == "training" else 0.7} for name in passes}
    evidence = finding(measured(run(CALM), metrics=accuracy, size=1000, **passes), CAUSE)["evidence"]
    assert evidence["dropout"]["limit"] is None and evidence["metric"]["limit"] is None
    assert evidence["metric"]["label"] == "accuracy lost (batch statistics 70.0%, training 50.0%)"
    passes["training"] = 1.6
    evidence = finding(measured(run(CALM), **passes), CAUSE)["evidence"]
    assert "metric" not in evidence and evidence["dropout"]["value"] > evidence["dropout"]["limit"]


def test_parts_that_training_normalizes_apart() -> None:
    """Ghost batches are no dropout, and the modules count an update for each."""
    layers = {"update_explained": [0.2] * 3, "calls": [1.0] * 3}
    passes: dict[str, Any] = {"inference": 1.0, "batch": 1.0, "recalibrated": 1.0, "training": 1.6}
    history = of_torch(measured(run(CALM), layers=layers, **passes))
    history.layers[..., LAYER_INDEX["updates"]] *= 8
    assert "8 updates a step: if training normalizes parts" in finding(history, CAUSE)["summary"]


def test_a_greater_gap_is_another_cause() -> None:
    history = run(SimLayer(samples=4), noise_penalty=2.0, dropout=0.6)
    assert finding(history, CAUSE)["status"] == "another_cause"
    assert behind(history, CAUSE) == "batch-noise"


def test_frozen_layers_that_do_not_fit_hide_it() -> None:
    history = simulate(Sim([FROZEN_OFF, SimLayer("head", momentum=0.9)], steps=300, planned=300, dropout=0.6))
    assert finding(history, CAUSE)["status"] == "not_evaluated"
