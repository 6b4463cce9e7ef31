"""A gap that no other cause explains."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tb_bnlens.history import History
from tb_bnlens.metadata import HALF_PRECISION, Moment
from tb_bnlens.report import run_report
from tb_bnlens.report.text import render_run
from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, causes, finding, level, measured, put, rows, run
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


@pytest.mark.parametrize(("before", "told"), [((1.2, 1.6), {CAUSE: "error"}), ((1.2, 1.02), {}), ((0.9, 1.6), {})])
def test_a_gap_that_grows_at_each_probe_is_no_chance(before: tuple[float, float], told: dict[str, str]) -> None:
    """The last one is beyond doubt; the spread of the last three is that of the growth."""
    whole = put(put(level(), "inference", [*before, 13.0]), "recalibrated", [40.0] * 3)
    history = replace(
        whole,
        losses=whole.losses[-6:],
        loss_wall_times=whole.loss_wall_times[-6:],
        loss_steps=np.array([1, 3, 9, 27, 81, 243]),
    )
    assert causes(history) == told
    if told:
        assert "too little to name a cause" in finding(history, CAUSE)["summary"]


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


def test_an_accuracy_that_is_lost_while_the_loss_is_lower() -> None:
    """A network that is less sure and wrong more often. Shares and advice go by the metric as well."""
    right = {"inference": 0.72, "batch": 0.88, "recalibrated": 0.88, "replay_0.95": 0.87, "replay_0.5": 0.8}
    losses: dict[str, Any] = {
        "inference": 0.7,
        "batch": 0.8,
        "recalibrated": 0.79,
        "replay_0.95": 0.78,
        "replay_0.5": 0.75,
    }
    accuracy = {name: {"accuracy": value} for name, value in right.items()}
    starting = run(SimLayer(momentum=0.999), steps=60, planned=60)
    history = measured(starting, metrics=accuracy, size=1000, scatter=0.1, **losses)
    assert causes(history) == {"momentum-too-high": "error"}
    report = run_report(history)
    assert report["headline"].startswith("Inference gives accuracy 72.0%, with batch statistics it is 88.0%; the loss")
    found = finding(history, "momentum-too-high")
    assert found["share"] == 1.0 and "set_momentum(model, 0.95)" in found["fix"]
    assert "# inference loss 0.79, accuracy 88.0% (measured on 12 batches)" in found["rescue"]
    accuracy["inference"] = {"accuracy": 0.87}
    assert causes(measured(starting, metrics=accuracy, size=1000, scatter=0.1, **losses)).keys() <= {
        "momentum-too-high"
    }
    assert run_report(measured(starting, metrics=accuracy, size=1000, **losses))["severity"] == "info"


def test_a_metric_that_makes_the_severity_is_the_evidence() -> None:
    """The loss alone would be a note: no threshold of the loss is shown beside it."""
    passes: dict[str, Any] = {"inference": 1.3, "batch": 1.0, "recalibrated": 1.3}
    right = {"inference": 0.70, "batch": 0.95, "recalibrated": 0.70}
    accuracy = {name: {"accuracy": value} for name, value in right.items()}
    found = finding(measured(level(), metrics=accuracy, size=1000, **passes), "train-inference-gap")
    assert found["severity"] == "error"
    assert (found["evidence"]["gap"]["limit"], found["evidence"]["gap"]["value"]) == (None, pytest.approx(0.3))
    metric = found["evidence"]["metric"]
    assert metric["label"] == "accuracy lost (batch statistics 95.0%, inference 70.0%)"
    assert metric["value"] == pytest.approx(0.25) and metric["limit"] < 0.25
    without = finding(measured(level(), **passes | {"inference": 2.0}), "train-inference-gap")["evidence"]
    assert "metric" not in without and without["gap"]["limit"] == pytest.approx(0.5)


def test_a_check_names_what_it_cannot_tell_apart() -> None:
    history = measured(level(), inference=3.0, batch=1.0, recalibrated=1.0)
    checked = replace(history, evidence=(replace(history.evidence[0], moment=Moment.CHECK),))
    found = finding(checked, CAUSE)
    for reason in (
        "lagged when training ended",
        "averaged, as by SWA or EMA",
        "preprocessed otherwise than in training",
    ):
        assert reason in found["summary"]
    assert "do not fit data and weights" in found["next"]


def test_a_lag_that_nothing_explains_is_no_drift() -> None:
    """Neither a shorter memory nor bursts were measured: a call outside the training step does the same."""
    stale: dict[str, Any] = {"inference": 9.0, "batch": 1.0, "recalibrated": 1.0}
    history = rows(run(SimLayer(momentum=0.9), steps=600), shift=np.nan, shift_noise=np.nan)
    history = measured(history, layers={"error_p50": [0.9], "error_p95": [0.9], "distance_rms": [0.9]}, **stale)
    assert causes(history) == {CAUSE: "error"}
    assert "calls the model in training mode" in finding(history, CAUSE)["summary"]
    assert "recalibrate" in finding(history, CAUSE)["rescue"]


def test_statistics_that_are_hardly_off_are_named_where_new_ones_close_the_gap() -> None:
    # A loss that feels what no cause has a limit for.
    history = measured(level(), layers={"distance_rms": [0.02] * 3}, inference=1.6, batch=1.0, recalibrated=1.0)
    assert causes(history) == {CAUSE: "warning"}
    assert "It comes from the moving statistics, which are at most 0.02 standard" in finding(history, CAUSE)["summary"]


def test_a_gap_below_a_warning_is_not_called_no_problem_in_one_breath() -> None:
    def headline(gap: float) -> str:
        batch = 0.5 + 0.01 * np.resize([1.0, -1.0], 12)
        return run_report(measured(level(), batch=batch, inference=batch + gap, recalibrated=batch))["headline"]

    assert headline(0.02).startswith("No BatchNorm problem found: inference loss 0.52 matches")
    assert headline(0.1).startswith("Inference loss 0.6 is above the loss with batch statistics (0.5")
    assert headline(0.1).endswith("The difference is too small for a warning.")


def live(inference: list[float], steps: list[int]) -> History:
    """A run of 600 steps whose last probes are at these steps, with a loss of 1 with batch statistics."""
    history = put(level(CALM), "inference", inference)
    at = history.loss_steps.copy()
    at[: -len(steps)] = np.linspace(1, 2, len(at) - len(steps))
    at[-len(steps) :] = steps
    return replace(history, loss_steps=at)


def test_a_difference_that_few_rows_cannot_tell_says_what_can() -> None:
    history = measured(level(), inference=[1.0, 12.0, 1.0, 1.0, 1.0, 1.0], batch=[1.0, 1.1] * 3, batches=6)
    said = run_report(history)["headline"]
    assert "may be chance: 192 rows are too few to tell, and tb_bnlens.check(model, data, batches=200) measures" in said


@pytest.mark.parametrize(("recalibrated", "told"), [(1.0, True), (1.15, False), (1.4, False)])
def test_what_recalibrating_would_give_a_healthy_run(recalibrated: float, told: bool) -> None:
    """Inference is as good as batch statistics, which pay for their noise."""
    history = measured(level(), inference=1.2, batch=1.2, recalibrated=recalibrated, scatter=0.01)
    assert causes(history) == {}
    assert ("; recalibrated it would be 1." in run_report(history)["headline"]) == told


@pytest.mark.parametrize(
    ("start", "entropy", "told"),
    [
        (0.7, 0.69, {}),  # two classes: nearly all rows are right both times
        (0.7, 0.026, {CAUSE: "error"}),  # one is so rare that to miss all of it costs no more
        (0.7, -1.0, {CAUSE: "error"}),  # no classes
        (0.7, 2.3, {CAUSE: "error"}),  # labels that come along with a reconstruction
        (7.0, 2.3, {}),
    ],
)
def test_a_loss_near_zero_where_targets_are_classes(start: float, entropy: float, told: dict[str, str]) -> None:
    whole = level(batch=1e-3, inference=5e-3, training=1e-3, recalibrated=1e-3)
    history = put(put(whole, "batch", [start] * 3, first=0), "target_entropy", [entropy] * len(whole.losses), first=0)
    assert {cause: severity for cause, severity in causes(history).items() if severity != "info"} == told


def test_one_probe_is_no_error() -> None:
    """It may be a bad batch: a warning at most, with the spread of the last three as its standard error."""
    sure, chance, many = (
        live([2.8, 3.0, 3.1], [100, 200, 600]),
        live([1.2, 1.1, 3.1], [100, 200, 600]),
        live([2.8, 3.0, 3.1], [580, 590, 600]),
    )
    assert causes(sure) == {CAUSE: "warning"} and causes(many) == {CAUSE: "error"}
    assert causes(chance) == {}
    assert "may be chance" in run_report(chance)["headline"]
    texts = [render_run(run_report(history)) for history in (sure, many)]
    assert ["a warning at most, from so few batches" in text for text in texts] == [True, False]
    found = finding(sure, CAUSE)
    assert "This is of 1 probe up to step 600" in found["summary"] and not found["fix"]


def test_what_no_statistics_serve_takes_several_batches() -> None:
    history = live([2.8, 3.0, 3.1], [100, 200, 600])
    for kind in ("recalibrated", "recalibrated_long", "recalibrated_now"):
        put(history, kind, [3.0] * len(history.losses))
    found = finding(history, "batch-noise")
    assert (found["status"], found["summary"]) == (
        "not_evaluated",
        "This takes more batches than have been probed lately.",
    )


def test_losses_of_long_ago_are_said_to_be_old() -> None:
    history = live([1.0, 1.0, 1.0], [80, 90, 100])
    assert run_report(history)["headline"].endswith("at step 100, and training went on to step 600.")
    assert "went on" not in run_report(level())["headline"]
    assert causes(live([3.0, 3.0, 3.0], [80, 90, 100])) == {CAUSE: "warning"}


def test_half_precision_loses_small_updates() -> None:
    """The statistics stop on their way, so no number of updates brings them there."""
    passes: dict[str, Any] = {"batch": 0.18, "inference": 3.0, "recalibrated": 0.08}
    history = measured(run(SimLayer(momentum=0.9)), layers={"error_p95": [9.0] * 3}, **passes)
    note = f"3 layers ('a' ...) {HALF_PRECISION}, from which batch statistics cannot be recovered."
    coarse = replace(history, manifest=replace(history.manifest, notes=(note,)))
    found, layer = finding(coarse, CAUSE), run_report(coarse)["layers"][0]
    assert "half a unit in the last place is lost" in found["summary"] and "mixed_bfloat16" in found["fix"]
    assert (layer["steps_to_converge"], layer["steps_reason"]) == (
        None,
        "not known: half precision loses small updates",
    )
    assert "half" not in finding(history, CAUSE)["summary"] and not finding(history, CAUSE)["fix"]


def falling(inference: list[float], **last: float) -> History:
    """A live run whose loss with batch statistics is 0.9, 0.6 and 0.3 at its last probes, of which one is recent."""
    history = live(inference, [100, 200, 600])
    for kind in ("batch", "training", "updated"):
        put(history, kind, [0.9, 0.6, 0.3])
    for kind, value in last.items():
        put(history, kind, [value])
    return history


def test_a_probe_is_no_graver_than_those_before_at_their_own_loss() -> None:
    """Where the loss fell, one difference is a greater harm at the end than it was."""
    once, ever = falling([1.1, 0.8, 0.55]), falling([1.4, 1.1, 0.8])
    assert CAUSE not in causes(once) and causes(ever)[CAUSE] == "warning"
    report = run_report(once)
    assert report["headline"].endswith("The difference is of 1 probe, and those before show less.")
    assert report["losses"]["harm"] == pytest.approx(0.2 / 0.6, rel=1e-3)


def test_statistics_of_past_weights_tell_no_parts() -> None:
    """Windows that serve worse than the moving statistics are older than these."""
    past = falling([1.4, 1.1, 0.8], recalibrated=6.0, recalibrated_now=np.nan)
    losses = run_report(past)["losses"]
    assert (losses["noise"], losses["stale"], losses["recalibrated"]) == (None, None, None)
    assert "past weights" in losses["not_evaluated"]["recalibrated"]
    assert finding(past, CAUSE)["evidence"].keys() == {"gap", "uncertainty"}
    fine = falling([1.4, 1.1, 0.8], recalibrated=0.4, recalibrated_now=np.nan)
    assert run_report(fine)["losses"]["noise"] == pytest.approx(0.1, rel=1e-3)
    assert {"noise", "stale"} <= finding(fine, CAUSE)["evidence"].keys()
