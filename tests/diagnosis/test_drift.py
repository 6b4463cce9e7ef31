"""The batch statistics move, and the moving statistics follow without catching up."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tb_bnlens.report import run_report
from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import behind, causes, finding, level, measured, rows, ruled_out, run, summary
from tests.simulation import SimLayer, pose_network

CAUSE = "drift"

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, pose_network)


def test_drift_is_told_from_initial_statistics() -> None:
    history = pose_network()
    found = finding(history, CAUSE)
    assert causes(history) == {CAUSE: "error"}
    assert found["steps_to_converge"] == "never"
    assert "last part of the training" in found["fix"] and "\nmodel.optimizer.learning_rate = " in found["fix"]
    assert re.search(r"Momentum 0.99 follows [\d.]+ standard deviations behind for as long as", found["summary"])
    assert "initial statistics is left" in ruled_out(history, CAUSE)["momentum too high"]


def test_the_rate_and_the_permanent_lag_are_right() -> None:
    layer = run_report(pose_network(drift=0.02))["layers"][0]
    assert layer["drift"] == pytest.approx(0.02, rel=0.1)
    assert layer["permanent_lag"] == pytest.approx(0.02 * 99, rel=0.1)


def test_little_drift_raises_nothing() -> None:
    assert causes(pose_network(drift=2e-4)) == {}


def test_drift_without_a_gap_is_a_note() -> None:
    assert causes(pose_network(gain=0.0)) == {CAUSE: "info"}
    assert "hardly depends" in summary(pose_network(gain=0.0), CAUSE)


def test_statistics_of_long_ago_show_no_lag() -> None:
    """Records that are farther apart than the memory hold the way that the statistics went in between."""
    # The last two records are 80 steps apart.
    told, unknown = pose_network(0.99, probe=False), pose_network(0.97, drift=0.05, probe=False, steps=884)
    assert CAUSE in causes(told) and causes(unknown) == {}
    assert finding(unknown, CAUSE)["status"] == "not_evaluated"
    assert "farther apart" in finding(unknown, CAUSE)["summary"]
    assert "tb_bnlens.check(model, data) measures it" in run_report(unknown)["verdict"]


def test_sorted_batches_are_another_cause() -> None:
    history = run(SimLayer(samples=32, between=1.0, block=60), gain=2.0)
    assert finding(history, CAUSE)["status"] == "another_cause"
    assert behind(history, CAUSE) == "unlike-batches"


def test_no_learning_rate_is_derived_where_nothing_was_seen_to_move() -> None:
    """The statistics lag, as behind batches of the past, at a rate of 0."""
    history = run(SimLayer(momentum=0.9))
    passes: dict[str, Any] = {"inference": 3.0, "batch": 1.0, "recalibrated": 1.0, "replay_0.5": 1.0}
    passes["put_right__settled"] = 1.0
    groups, rows = {"settled": (0, 1, 2)}, {"error_p95": [900.0] * 3, "update_explained": [1.0] * 3}
    fix = finding(measured(history, groups=groups, layers=rows, **passes), CAUSE)["fix"]
    assert "float(model.optimizer.learning_rate) * 0.1" in fix


@pytest.mark.parametrize(("replayed", "error", "told"), [(1.05, 0.15, True), (1.8, 0.15, False), (1.05, 0.05, False)])
def test_the_loss_tells_a_lag_that_batch_noise_would_explain(replayed: float, error: float, told: bool) -> None:
    """Newer statistics give back half of the loss and more, and so does a shorter memory."""
    passes: dict[str, Any] = {"inference": 1.8, "batch": 1.25, "recalibrated": 1.0, "put_right__settled": 1.0}
    passes["replay_0.5"] = replayed
    layers = {"error_p95": [0.05, 0.05, error], "reference_noise": [0.5] * 3, "noise_mean": [0.01] * 3}
    history = measured(level(), groups={"settled": (0, 1, 2)}, layers=layers, **passes)
    assert (causes(history) == {CAUSE: "warning"}) == told


def test_a_memory_of_one_batch_does_not_drift() -> None:
    """It scatters as single batches do: told as a momentum that is too low, whatever the lag."""
    history = rows(
        run(SimLayer(momentum=0.01, samples=32)), error_p95=9.0, error_p50=9.0, distance_rms=0.9, shift=np.nan
    )
    assert finding(history, CAUSE)["status"] in ("pass", "not_evaluated")


def test_drift_is_no_note_where_no_movement_was_seen() -> None:
    """Without bursts nothing tells drift from noise, so far-off statistics alone are worth no note."""
    history = rows(level(), error_p95=9.0, error_p50=9.0, distance_rms=0.9, shift=np.nan)
    assert CAUSE not in causes(history)
    assert "?" not in finding(history, CAUSE)["summary"]
