"""A gap that no other cause explains."""

from __future__ import annotations

import pytest

from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, causes, finding, level, measured, run
from tests.simulation import Sim, SimLayer, simulate

CAUSE = "train-inference-gap"

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, lambda: run(SimLayer(samples=1e5), noise_penalty=2.0))


def test_a_gap_that_noise_cannot_explain_is_not_called_noise() -> None:
    assert causes(run(SimLayer(samples=1e5), noise_penalty=2.0)) == {CAUSE: "error"}


def test_no_gap_passes() -> None:
    found = finding(level(), CAUSE)
    assert (found["status"], found["summary"]) == (
        "pass",
        "With the same weights and batch: inference 1, batch statistics 1.",
    )
    assert finding(run(CALM, probe=False), CAUSE)["status"] == "not_evaluated"


def test_a_loss_near_zero_is_not_alarmed_by_its_ratio() -> None:
    # 1e-6 against 2e-5 is twenty times more, and nothing of a loss that came down from 3.
    sim = Sim([SimLayer(momentum=0.9)], batch_loss=1e-6, gain=0.0, noise_penalty=2e-5, start_loss=3.0)
    assert causes(simulate(sim)) == {}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "layer",
    [
        SimLayer(momentum=0.9),
        SimLayer(momentum=0.99),
        SimLayer(momentum=0.9, samples=8, channels=4),
        SimLayer(momentum=0.99, samples=8, channels=4),
        SimLayer(momentum=0.9, samples=2),
    ],
    ids=["0.9", "0.99", "batch 8, 4 units, 0.9", "batch 8, 4 units, 0.99", "batch 2"],
)
def test_healthy_runs_raise_nothing(layer: SimLayer, seed: int) -> None:
    assert causes(simulate(Sim([layer], steps=1000, planned=1000, seed=seed, gain=1.0, probe_every=50))) == {}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("momentum", [0.9, 0.97, 0.99])
@pytest.mark.parametrize("samples", [8, 64, 4096])
def test_converged_runs_raise_nothing(momentum: float, samples: float, seed: int) -> None:
    history = run(SimLayer(momentum=momentum, samples=samples, true_variance=0.8), seed=seed, gain=0.5, steps=900)
    assert causes(history) == {}


def test_statistics_that_are_hardly_off_are_named_where_new_ones_close_the_gap() -> None:
    # A loss that feels what no cause has a limit for.
    history = measured(level(), layers={"distance_rms": [0.02] * 3}, inference=1.6, batch=1.0, recalibrated=1.0)
    assert causes(history) == {CAUSE: "warning"}
    assert "It comes from the moving statistics, which are at most 0.02 standard" in finding(history, CAUSE)["summary"]
