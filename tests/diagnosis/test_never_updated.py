"""Layers in training mode whose moving statistics never change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tb_bnlens.metadata import FLAX, KERAS, TORCH
from tb_bnlens.report import run_report
from tests.diagnosis.checks import silence_of
from tests.diagnosis.runs import CALM, causes, finding, measured, run
from tests.simulation import SimLayer

CAUSE = "never-updated"
STILL = SimLayer(state="never_updated", true_variance=0.05)

test_silenced = silence_of(CAUSE, lambda: run(STILL))


@pytest.mark.parametrize(("momentum", "fix"), [(1.0, "set_momentum(model, 0.99)"), (0.99, "training=True")])
def test_never_updated(momentum: float, fix: str) -> None:
    history = run(SimLayer(state="never_updated", momentum=momentum, true_variance=0.05))
    assert causes(history) == {CAUSE: "error"}
    assert fix in finding(history, CAUSE)["fix"]
    assert finding(history, CAUSE)["steps_to_converge"] == "never"


def test_without_harm_it_is_a_note() -> None:
    assert causes(run(STILL, gain=0.0)) == {CAUSE: "info"}
    assert "recalibrate" not in finding(run(STILL, gain=0.0), CAUSE)["fix"]


def test_new_statistics_are_not_advised_where_no_loss_tells_what_training_used() -> None:
    """A loop that never says training=True trains with the initial statistics, and new ones break what it learned."""
    found = finding(run(STILL, probe=False), CAUSE)
    assert found["severity"] == "warning" and "Then train again" in found["fix"]
    assert "recalibrate" not in found["fix"] + found["rescue"]
    assert "recalibrate" in finding(run(STILL), CAUSE)["fix"]


@pytest.mark.parametrize(("initial", "means"), [(1.0, "normalize nothing"), (0.0, "fine if it is intended")])
def test_a_loop_without_training_mode_is_told_in_one_way(initial: float, means: str) -> None:
    """Weights that were trained with constant statistics do better with them: the steps ran in inference mode."""
    passes: dict[str, Any] = {"inference": 0.8, "batch": 1.3, "recalibrated": 1.3, "put_right__never_updated": 1.3}
    groups, layers = {"never_updated": (0, 1, 2)}, {"initial_share": [initial] * 3}
    history = measured(run(STILL, gain=0.0), groups=groups, layers=layers, **passes)
    found, report = finding(history, CAUSE), run_report(history)
    assert causes(history) == {CAUSE: "info"} and means in found["summary"]
    assert report["headline"].endswith(": training itself runs in inference mode.")
    assert "calls the model without training=True: it does better" in found["summary"]
    assert "dropped" not in found["summary"] and "copied" not in found["summary"] + found["fix"]
    assert "training=True" in found["fix"] and found["rescue"] == ""
    # Updates that are lost leave a network that was trained with batch statistics.
    lost = measured(history, groups=groups, layers=layers, **{**passes, "inference": 2.6})
    assert "its updates are dropped" in finding(lost, CAUSE)["summary"] and causes(lost) == {CAUSE: "error"}


@pytest.mark.parametrize("framework", [KERAS, TORCH, FLAX])
def test_an_average_of_weights_needs_statistics_of_its_own(framework: str) -> None:
    """Copies of the statistics of the network that is trained leave an average of weights far off."""
    passes: dict[str, Any] = {"inference": 9.0, "batch": 1.0, "recalibrated": 1.0, "put_right__never_updated": 1.0}
    history = replace(run(STILL), manifest=replace(run(STILL).manifest, framework=framework))
    history = measured(history, groups={"never_updated": (0, 1, 2)}, layers={"initial_share": [1.0] * 3}, **passes)
    fix = finding(history, CAUSE)["fix"]
    average, copies = fix.index("a moving average of another network's"), fix.index("(a target network), copy")
    assert "recalibrate(model, data, batches=200)" in fix[average:copies]


def test_updated_layers_pass() -> None:
    assert finding(run(CALM), CAUSE)["status"] == "pass"
