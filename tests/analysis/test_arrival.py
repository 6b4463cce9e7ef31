"""Steps to converge and their interval, on simulated layers whose course is known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tb_bnlens.analysis import arrival
from tb_bnlens.analysis.lag import table
from tb_bnlens.analysis.outlook import Outlook
from tb_bnlens.diagnosis.words.phrases import about_steps
from tb_bnlens.history import History
from tb_bnlens.metadata import LAYER_INDEX, LOSS_INDEX
from tb_bnlens.report import run_report
from tb_bnlens.report.text import render_run
from tests.simulation import Sim, SimLayer, simulate


def still(momentum: float, steps: int = 150, **layer: Any) -> History:
    """A variance of 1 at the start whose true value is 0.1, without noise: 448 steps at 0.99 and 4,498 at 0.999."""
    options = {"true_mean": 0.0, "true_variance": 0.1, "samples": 1e12, "epsilon": 0.0, **layer}
    return simulate(Sim([SimLayer(momentum=momentum, **options)], steps=steps, gain=0.0))


def report_of(history: History) -> Any:
    (layer,) = run_report(history)["layers"]
    return layer


@pytest.mark.parametrize(("momentum", "steps"), [(0.99, 448), (0.999, 4498)])
def test_statistics_that_stand_still_are_exact(momentum: float, steps: int) -> None:
    layer = report_of(still(momentum))
    assert abs(150 + layer["steps_to_converge"] - steps) <= 1
    low, high = layer["steps_interval"]
    assert layer["steps_reliable"] and low <= layer["steps_to_converge"] <= high
    assert low == pytest.approx(steps - 150 + math.log(arrival.LEAST_ERROR) / (1 - momentum), rel=0.01)
    assert high < 3 * (steps - 150)


@pytest.mark.parametrize(("steps", "reliable"), [(60, False), (100, True)])
def test_an_interval_waits_until_a_replay_has_forgotten_its_start(steps: int, reliable: bool) -> None:
    layer = report_of(still(0.99, steps))
    assert isinstance(layer["steps_to_converge"], int)
    assert (layer["steps_interval"] is not None, layer["steps_reliable"]) == (reliable, reliable)
    assert ("too few updates" in layer["steps_reason"]) is not reliable


def test_nothing_is_said_below_the_noise_floor() -> None:
    history = still(0.99, 430, samples=16.0)
    noise = float(table(history).error_noise[0])
    for factor, said in ((0.9, False), (1.1, True)):
        history.layers[-1, :, LAYER_INDEX["error_p95"]] = factor * arrival.NOISE_SIGMAS * noise
        layer = report_of(history)
        assert (layer["steps_to_converge"] is not None) is said
        assert layer["steps_reliable"] is said


def test_records_farther_apart_than_the_memory_say_nothing() -> None:
    history = still(0.99, 300)
    keep = np.searchsorted(history.steps, [0, 50, 150, 300])
    history = replace(
        history, steps=history.steps[keep], wall_times=history.wall_times[keep], layers=history.layers[keep]
    )
    layer = report_of(history)
    assert (layer["steps_to_converge"], layer["steps_interval"], layer["steps_reliable"]) == (None, None, False)
    assert "too far apart" in layer["steps_reason"]
    assert "Records too far apart: the records are farther" in render_run(run_report(history))


def test_a_steady_drift_never_arrives() -> None:
    layer = report_of(still(0.99, 600, drift=0.01))
    assert layer["steps_to_converge"] == layer["steps_interval"][1] == "never"
    # A drift of r an update keeps a lag of r beta / (1 - beta), here 0.99.
    assert layer["error_renewed"] == pytest.approx(0.99, rel=0.35)
    assert "the statistics keep moving" in layer["steps_reason"]


@pytest.mark.parametrize(("rate", "end"), [(1e-3, int), (1e-2, str)])
def test_a_lag_that_fades_may_never_arrive_at_a_high_learning_rate(rate: float, end: type) -> None:
    history = still(0.99, 600, drift=0.01)
    rows = [LAYER_INDEX[name] for name in LAYER_INDEX if name.startswith("replay_")]
    # The movement was three times as fast in the first half.
    early = history.steps <= 330
    history.layers[:, :, rows] *= np.where(early, 3.0, 1.0)[:, None, None]
    history.losses[:, 0, LOSS_INDEX["learning_rate"]] = rate
    layer = report_of(history)
    assert isinstance(layer["steps_to_converge"], int)
    assert isinstance(layer["steps_interval"][1], end)
    assert ("may never converge at this learning rate" in layer["steps_reason"]) is (end is str)


@pytest.mark.parametrize("state", ["frozen", "never_updated"])
def test_constant_statistics_never_arrive(state: str) -> None:
    layer = report_of(still(0.99, state=state))
    assert (layer["steps_to_converge"], layer["steps_interval"], layer["steps_reliable"]) == (
        "never",
        ["never", "never"],
        True,
    )


def test_the_worst_channel_does_not_come_first() -> None:
    history = still(0.99, 600, drift=0.001)
    found = arrival.arrival(history)
    known = ~np.isnan(found.steps)
    assert (found.steps_worst[known] >= found.steps[known]).all()


def test_every_record_is_judged_by_what_was_known_then() -> None:
    history = simulate(Sim([SimLayer("a", momentum=0.999), SimLayer("b", momentum=0.99, drift=0.002)], steps=300))
    over_time = arrival.arrival(history)
    for record in (3, len(history.steps) // 2, len(history.steps) - 1):
        at = arrival.arrival(history, np.array([record]))
        for name in ("steps", "steps_worst", "low", "high", "lag", "error_noise"):
            np.testing.assert_array_equal(getattr(at, name)[0], getattr(over_time, name)[record], name)


def test_steps_in_words() -> None:
    assert about_steps(4498, (4141, 5230)) == "about 4,500 steps (4,100 to 5,200)"
    assert about_steps(4498) == "about 4,500 steps"
    assert about_steps(2.6, (2.2, 3.0)) == "about 3 steps", "no interval of no width"
    assert "may never converge at this learning rate" in about_steps(4498, (4141, math.inf))
    never = "it may never converge at this learning rate"
    assert about_steps(4143, (4141, math.inf), " from now") == f"at least 4,100 steps from now, and {never}"
    assert about_steps(math.inf, (4141, math.inf)) == "at least 4,100 steps, and more steps than any run has"


def test_steps_and_interval_belong_to_the_error_measured_on_many_batches() -> None:
    history = still(0.99, 100)
    recorded = arrival.arrival(history)
    present = {"error_p95": np.array([0.5 * recorded.error[-1, 0]]), "error_max": np.array([np.nan])}
    said = arrival.arrival(history, present=present)
    assert said.error[-1, 0] == present["error_p95"][0] > history.manifest.tolerance
    assert np.array_equal(said.error[:-1], recorded.error[:-1])
    fewer = math.log(2.0) / -math.log(0.99)
    assert recorded.steps[-1, 0] - said.steps[-1, 0] == pytest.approx(fewer, abs=2.0)
    assert said.low[-1, 0] <= said.steps[-1, 0] <= said.high[-1, 0] < recorded.high[-1, 0]


def test_the_interval_is_of_what_tells_the_steps() -> None:
    there_at_once = Outlook(100, 0, 0.0, 300.0, loss_interval=(0.0, 0.0), layer_interval=(250.0, 400.0))
    assert (there_at_once.steps, there_at_once.interval) == (0.0, (0.0, 0.0))
    suffers = replace(there_at_once, suffers=True)
    assert (suffers.steps, suffers.interval) == (300.0, (250.0, 400.0))
