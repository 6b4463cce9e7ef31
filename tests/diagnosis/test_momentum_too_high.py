"""The initial statistics are still there, and no steps are left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tb_bnlens.analysis import outlook
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.words.momentum_too_high import _left as left_in_words
from tb_bnlens.diagnosis.words.phrases import hardly_felt
from tb_bnlens.history import Event
from tb_bnlens.report import run_report
from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.limits import without_replays
from tests.diagnosis.runs import behind, causes, finding, level, measured, put, ruled_out, run, silenced, summary
from tests.simulation import Sim, SimLayer, band_locator, simulate

CAUSE = "momentum-too-high"

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, band_locator)


def test_the_band_locator_is_told_the_cause_and_the_fix() -> None:
    history = band_locator(layers=52)
    report, found = run_report(history), finding(history, CAUSE)
    assert report["severity"] == "error"
    assert causes(history) == {CAUSE: "error"}
    assert len(found["layers"]) == 52
    # Of the replays that are as good as the best and forget the start within 400 steps, the customary one.
    assert "set_momentum(model, 0.9)" in found["fix"]
    assert "recalibrate(model, data" in found["rescue"]
    assert "with batch statistics" in report["headline"]
    assert "All 52 BatchNorm layers still hold too much of their initial statistics" in report["reasons"][0]
    assert (
        "Momentum 0.999 needs about 8,000 steps (6,200 to 8,700) until the inference loss converges; this run had 400"
        in report["reasons"][0]
    )


def test_without_a_replay_no_small_momentum_is_advised_where_a_common_one_forgets_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def advised(steps: int) -> float | None:
        return Facts(band_locator(layers=3, steps=steps, probe=False)).advised_momentum

    assert [advised(steps) for steps in (20, 100, 2_000)] == [0.5, 0.9, 0.97]
    monkeypatch.setattr(outlook, "COMMON", 0.0)
    assert advised(100) == 0.5


def test_without_a_replay_drift_advises_no_small_momentum(monkeypatch: pytest.MonkeyPatch) -> None:
    """What seems to drift may be the order of the batches."""
    layers = Facts(band_locator(layers=3, steps=600, probe=False)).layers
    moving = replace(layers, rate=np.full(3, 0.01), noise_mean=np.full(3, 0.02))
    losses = Facts(band_locator(layers=3, steps=600, probe=False)).losses
    assert outlook.following_momentum(moving) < 0.5
    assert outlook.advised_momentum(moving, losses, 600) == 0.9


@pytest.mark.parametrize(("newer", "advised"), [(1.3, False), (0.97, True)])
def test_a_start_that_serves_better_than_newer_statistics_is_not_to_blame(newer: float, advised: bool) -> None:
    history = without_replays(run(SimLayer(momentum=0.999, true_variance=0.05), gain=0.0))
    for kind, value in {"inference": 1.0, "recalibrated": newer, "recalibrated_now": np.nan}.items():
        put(history, kind, [value] * len(history.losses))
    found = finding(history, CAUSE)
    assert found["severity"] == "info" and bool(found["fix"]) == advised


def test_the_headline_names_what_newer_statistics_give_where_the_batches_own_do_not() -> None:
    """Small batches cost as much as the lag, so that inference does no worse than batch statistics."""
    history = measured(run(SimLayer(momentum=0.9995, true_variance=0.05)), batch=0.19, inference=0.2, recalibrated=0.03)
    headline = run_report(history)["headline"]
    assert causes(history).keys() == {CAUSE}
    assert headline.startswith("Inference loss 0.2 matches the loss with batch statistics (0.19, ")
    assert headline.endswith("; recalibrated it would be 0.03.")


def test_no_steps_are_needed_where_the_loss_has_arrived_first() -> None:
    """And the momentum in use, which a record holds in float32, is not advised."""
    history = run(SimLayer(momentum=float(np.float32(0.99)), true_variance=0.05), steps=3, planned=3, gain=0.0)
    same: dict[str, Any] = {"replay_0.97": 0.2, "replay_0.99": 0.2}
    history = measured(history, batch=0.2, inference=0.2, recalibrated=0.2, **same)
    found = finding(history, CAUSE)
    assert found["status"] == "fail" and "With momentum 0.99, 97% is left; this run had 3 steps." in found["summary"]
    assert "steps_needed" not in found["evidence"]
    # Not the replayed 0.97 either, which forgets the start in no 3 steps.
    assert "set_momentum(model, 0.5)" in found["fix"]
    assert "Inference loss near" not in found["next"]


def test_weights_that_were_loaded_without_statistics_are_told() -> None:
    layer, begun = SimLayer(momentum=0.999, true_variance=0.05), Event(0, "new_statistics", "", (0,))
    told, silent = (finding(run(layer, steps=300, planned=300, events=events), CAUSE) for events in ((begun,), ()))
    assert "if the weights were loaded, the statistics were not" in told["summary"] + told["fix"]
    assert "load_weights" in told["fix"] and "set_momentum" not in told["fix"]
    assert "were not loaded" not in silent["summary"] and "set_momentum" in silent["fix"]
    warming = finding(run(layer, steps=300, planned=30_000, events=(begun,)), "warming-up")
    assert warming["status"] == "fail" and "if the weights were loaded" in warming["summary"]


def test_a_momentum_is_advised_where_windows_are_too_long_to_replay_a_lower_one() -> None:
    higher: dict[str, Any] = {"replay_0.997": 0.3}
    history = run(SimLayer(momentum=0.99, true_variance=0.05), steps=100, planned=100)
    history = measured(history, batch=0.2, inference=0.2, recalibrated=0.2, **higher)
    assert "set_momentum(model, 0.9)" in finding(history, CAUSE)["fix"]


def test_the_gap_is_another_cause() -> None:
    history = band_locator()
    assert finding(history, "train-inference-gap")["status"] == "another_cause"
    assert behind(history, "train-inference-gap") == behind(history, "warming-up") == CAUSE


def test_its_share_of_the_gap_is_what_recalibrating_takes_away() -> None:
    history = band_locator(layers=6)
    losses = run_report(history)["losses"]
    assert losses["inference"] is not None and losses["recalibrated"] is not None and losses["batch"] is not None
    expected = (losses["inference"] - losses["recalibrated"]) / (losses["inference"] - losses["batch"])
    assert finding(history, CAUSE)["share"] == pytest.approx(expected, abs=0.01)


def test_rivals_are_ruled_out_by_their_own_numbers() -> None:
    against = ruled_out(band_locator(), CAUSE)
    assert {"drift", "batch noise", "frozen layers on other data"} <= against.keys()
    assert "lag of 0 batch standard deviations" in against["drift"]
    assert "best fixed statistics give a loss of" in against["batch noise"]


def test_a_rival_that_is_named_too_is_not_ruled_out() -> None:
    frozen = SimLayer("frozen", state="frozen", true_mean=1.5, true_variance=3.0)
    lagging = SimLayer("lagging", momentum=0.999, true_variance=0.05)
    history = simulate(Sim([frozen, lagging], steps=300, planned=300))
    assert {CAUSE, "frozen-mismatch"} <= causes(history).keys()
    assert "frozen layers on other data" not in ruled_out(history, CAUSE)


def test_the_band_locator_at_0_9_is_healthy() -> None:
    report = run_report(band_locator(0.9))
    assert report["severity"] == "none"
    assert report["headline"].startswith("No BatchNorm problem found: inference loss")
    assert report["reasons"] == []


@pytest.mark.parametrize(("momentum", "true_variance"), [(0.99, 0.1), (0.999, 0.1), (0.997, 0.3)])
def test_steps_to_converge_are_right_within_one(momentum: float, true_variance: float) -> None:
    layer = SimLayer(momentum=momentum, true_mean=0.0, true_variance=true_variance, samples=1e12, epsilon=0.0)
    history = simulate(Sim([layer], steps=60, gain=0.0))
    needed = run_report(history)["layers"][0]["steps_to_converge"]
    assert isinstance(needed, int)
    s, n = 1.0, 0
    while abs(s - true_variance) > 0.1 * true_variance:
        s, n = momentum * s + (1 - momentum) * true_variance, n + 1
    assert abs(60 + needed - n) <= 1


@pytest.mark.parametrize("planned", [100, 300, None])
def test_a_run_that_is_too_short_is_an_error(planned: int | None) -> None:
    assert causes(band_locator(steps=100, planned=planned)).keys() == {CAUSE}


def test_a_large_distance_without_a_gap_is_a_note() -> None:
    assert causes(band_locator(gain=0.0)) == {CAUSE: "info"}
    assert "hardly depends" in summary(band_locator(gain=0.0), CAUSE)


def test_without_losses_the_severity_is_an_estimate() -> None:
    history = band_locator(probe=False)
    assert causes(history) == {CAUSE: "warning"}
    assert "estimate" in summary(history, CAUSE)


def test_frozen_layers_are_not_blamed() -> None:
    frozen = [SimLayer(f"frozen_{i}", state="frozen", start=(0.3, 0.5), channels=1) for i in range(3)]
    lagging = [SimLayer(f"new_{i}", momentum=0.999, true_variance=0.05) for i in range(3)]
    history = simulate(Sim(frozen + lagging, steps=300, planned=300))
    assert causes(history) == {CAUSE: "error"}
    assert finding(history, CAUSE)["layers"] == ["new_0", "new_1", "new_2"]


def test_silenced_for_some_layers() -> None:
    report = silenced(band_locator(), CAUSE, "block_0_*")
    found = next(f for f in report["findings"] if f["rule"] == CAUSE)
    assert not found["silenced"]
    assert len(found["layers"]) == 9
    assert "silenced" in found["summary"]


def test_a_loss_that_can_be_negative() -> None:
    bad = causes(band_locator(batch_loss=-50.0, gain=-1.0, start_loss=60.0))
    good = causes(band_locator(0.9, batch_loss=-50.0, gain=-1.0, start_loss=60.0))
    assert set(bad.values()) <= {"warning", "error"} and bad
    assert good == {}


def test_no_plan_is_no_promise_when_the_run_is_over() -> None:
    history = band_locator(0.99, steps=100, planned=None)
    assert CAUSE not in causes(history)
    assert CAUSE in causes(replace(history, manifest=replace(history.manifest, ended="planned")))


def test_steps_in_which_a_layer_was_frozen_are_told_apart() -> None:
    lagging = SimLayer(momentum=0.999, true_variance=0.05)
    whole = simulate(Sim([lagging], steps=400, planned=400))
    short = simulate(Sim([lagging], steps=400, planned=400, overrides={"updates": 120.0}))
    assert "of which" not in summary(whole, CAUSE)
    assert "this run had 400, of which 121 updated it." in summary(short, CAUSE)


def test_a_note_says_how_sure_it_is_that_the_loss_hardly_depends_on_it() -> None:
    """A probe or two may show a great difference that is worth a note alone."""
    probed = band_locator()
    many = measured(probed, inference=3.0, batch=1.0, recalibrated=2.95)
    assert "not sure yet" in hardly_felt(Facts(probed))
    for felt_little in (band_locator(gain=0.0), many):
        assert "hardly depends" in hardly_felt(Facts(felt_little))
    some: dict[str, Any] = {"inference": 1.4, "batch": 1.0, "recalibrated": 1.0}
    assert hardly_felt(Facts(measured(probed, **some))) == " That is too little for a warning."
    assert hardly_felt(Facts(measured(probed, **some | {"inference": [0.4, 2.4] * 6}))) == " That may be chance."


def test_the_harm_explains_a_warning_of_stale_statistics() -> None:
    """Of probes as of measurements: batch statistics are bad themselves, and renewed ones far better."""
    losses = {"inference": 1.4, "recalibrated": 0.8, "recalibrated_now": 0.8}
    report = run_report(level(SimLayer(momentum=0.999, true_variance=0.05), **losses))
    assert report["severity"] == "warning" and report["losses"]["batches"] is None
    assert report["losses"]["rival"] == "the loss with recalibrated statistics"
    assert report["losses"]["harm"] == pytest.approx(0.75, rel=0.01) and report["losses"]["rival_loss"] is None


def test_a_small_share_of_a_start_that_was_far_off() -> None:
    late, early = (Facts(run(SimLayer(momentum=0.99, true_mean=2e3), steps=steps)) for steps in (600, 60))
    assert left_in_words(late, np.array([0.99])) == "With momentum 0.99, 0.24% is left of a start that was far off"
    assert left_in_words(early, np.array([0.99])) == "With momentum 0.99, 55% is left"
