"""The first four rules on simulated runs with a known fault, and their silence on healthy ones."""

from typing import Any

import pytest

from tb_bnlens.report import run_report
from tests.simulation import Sim, SimLayer, band_locator, simulate


def finding(report: dict[str, Any], rule: str) -> dict[str, Any]:
    return next(f for f in report["findings"] if f["rule"] == rule)


def failures(report: dict[str, Any]) -> set[str]:
    return {f["rule"] for f in report["findings"] if f["status"] == "fail" and not f["explained_by"]}


def test_band_locator_is_told_the_cause_and_the_fix() -> None:
    report = run_report(band_locator(layers=52))
    found = finding(report, "momentum-too-high")
    assert report["severity"] == "error"
    assert failures(report) == {"momentum-too-high"}
    assert len(found["layers"]) == 52
    assert "set_momentum(model, 0.9)" in found["fix"]
    assert "0.999" in report["verdict"] and "worse than training mode" in report["verdict"]
    assert finding(report, "train-inference-gap")["explained_by"] == "momentum-too-high"


def test_band_locator_at_0_9_is_healthy() -> None:
    report = run_report(band_locator(0.9))
    assert report["severity"] == "none"
    assert "Healthy" in report["verdict"]


@pytest.mark.parametrize(("momentum", "true_variance"), [(0.99, 0.1), (0.999, 0.1), (0.997, 0.3)])
def test_steps_to_converge_are_right_within_one(momentum: float, true_variance: float) -> None:
    layer = SimLayer(momentum=momentum, true_mean=0.0, true_variance=true_variance, samples=1e12, epsilon=0.0)
    history = simulate(Sim([layer], steps=60, gain=0.0))
    predicted = 60 + run_report(history)["layers"][0]["steps_to_converge"]
    s, n = 1.0, 0
    while abs(s - true_variance) > 0.1 * true_variance:
        s, n = momentum * s + (1 - momentum) * true_variance, n + 1
    assert abs(predicted - n) <= 1


def test_steps_in_terms_of_the_loss_are_seen_to_come_true() -> None:
    early = run_report(band_locator(0.99, layers=6, steps=150, planned=4000))
    predicted = 150 + finding(early, "warming-up")["steps_to_converge"]
    late = band_locator(0.99, layers=6, steps=1000, planned=4000, probe_every=5)
    inference, target = late.loss("inference"), late.loss("recalibrated") * 1.1
    observed = int(late.loss_steps[(inference > target).nonzero()[0][-1]])
    assert predicted == pytest.approx(observed, rel=0.1)


def test_a_run_that_will_make_it_is_a_note() -> None:
    report = run_report(band_locator(0.99, steps=100, planned=6000))
    assert report["severity"] == "info"
    assert failures(report) == {"warming-up"}
    assert finding(report, "train-inference-gap")["explained_by"] == "warming-up"


@pytest.mark.parametrize("planned", [100, 300, None])
def test_a_run_that_will_not_make_it_is_an_error(planned: int | None) -> None:
    assert failures(run_report(band_locator(steps=100, planned=planned))) == {"momentum-too-high"}


def test_a_large_distance_without_a_gap_is_a_note() -> None:
    report = run_report(band_locator(gain=0.0))
    assert report["severity"] == "info"
    assert finding(report, "momentum-too-high")["severity"] == "info"


def test_without_losses_the_severity_is_an_estimate() -> None:
    report = run_report(band_locator(probe=False))
    assert finding(report, "momentum-too-high")["severity"] == "warning"
    assert "estimate" in finding(report, "momentum-too-high")["summary"]


def test_poisoned_statistics() -> None:
    sim = Sim([SimLayer("good"), SimLayer("bad", poisoned_at=150)], steps=400, planned=400)
    report = run_report(simulate(sim))
    found = finding(report, "non-finite-statistics")
    assert (found["severity"], found["layers"], found["steps_to_converge"]) == ("error", ["bad"], "never")
    assert 150 <= found["first_step"] <= 166
    assert failures(report) == {"non-finite-statistics"}


def test_diverged_training_is_not_blamed_on_batchnorm() -> None:
    history = simulate(Sim([SimLayer(poisoned_at=100)]))
    history.losses[history.loss_steps > 100] = float("nan")
    report = run_report(history)
    assert "diverged" in finding(report, "non-finite-statistics")["summary"]
    assert "diverged" in report["verdict"]


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
    report = run_report(simulate(Sim([layer], steps=1000, planned=1000, seed=seed, gain=1.0, probe_every=50)))
    assert report["severity"] == "none", report["verdict"]


def test_a_loss_that_can_be_negative() -> None:
    bad = run_report(band_locator(batch_loss=-50.0, gain=-1.0, start_loss=60.0))
    good = run_report(band_locator(0.9, batch_loss=-50.0, gain=-1.0, start_loss=60.0))
    assert bad["severity"] in ("warning", "error")
    assert good["severity"] == "none"


def test_a_loss_near_zero_is_not_alarmed_by_its_ratio() -> None:
    # 1e-6 against 2e-5 is twenty times more, and nothing of a loss that came down from 3.
    layer = SimLayer(momentum=0.9)
    sim = Sim([layer], batch_loss=1e-6, gain=0.0, noise_penalty=2e-5, start_loss=3.0)
    assert run_report(simulate(sim))["severity"] == "none"
