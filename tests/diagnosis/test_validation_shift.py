"""Moving statistics that fit the training data and not the validation data."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tb_bnlens.history import History
from tb_bnlens.report import build_report, run_report
from tb_bnlens.report.text import render
from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, FROZEN_FIT, FROZEN_OFF, behind, causes, finding, level, measured, put, rows, run
from tests.simulation import SimLayer, pose_network

CAUSE = "validation-shift"

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, lambda: run(CALM, validation=(1.2, 5.0)))


def test_validation_data_with_other_statistics() -> None:
    history = run(CALM, validation=(1.2, 5.0))
    assert causes(history) == {CAUSE: "error"}
    assert behind(history, "overfitting") == CAUSE


def test_validation_data_to_which_the_statistics_are_as_near_as_to_training_data_are_no_others() -> None:
    """As in an overfitted network that has learned with constant statistics, which fit neither."""
    shifted = run(CALM, validation=(1.2, 5.0))
    near = rows(shifted, distance_rms=2.35, validation_distance_rms=2.28)
    assert finding(near, CAUSE)["status"] == "pass" and CAUSE not in causes(near)
    assert CAUSE in causes(rows(shifted, distance_rms=2.35, validation_distance_rms=[9.0, 2.3, 2.3]))
    assert CAUSE in causes(rows(shifted, validation_distance_rms=np.nan))


def test_the_headline_has_the_losses_of_both_data() -> None:
    headline = run_report(run(CALM, validation=(1.2, 5.0)))["headline"]
    assert headline.startswith("On validation data, inference loss is ")
    for figure in re.findall(r"\(([\d.]+) against ([\d.]+)\); on training data it is ([\d.]+) against", headline)[0]:
        assert figure in render(build_report([run(CALM, validation=(1.2, 5.0))]))


def test_a_gap_on_training_data_is_another_cause() -> None:
    history = run(SimLayer(samples=4), noise_penalty=2.0, validation=(1.2, 5.0))
    assert finding(history, CAUSE)["status"] == "another_cause"
    assert behind(history, CAUSE) == "batch-noise"


def test_validation_data_of_one_kind_pass() -> None:
    assert finding(run(CALM, validation=(1.1, 1.1)), CAUSE)["status"] == "pass"
    assert finding(run(CALM), CAUSE)["status"] == "not_applicable"


@pytest.mark.parametrize(("renewed", "in_training"), [(5.0, 1.0), (1.1, 1.0), (5.0, 2.5)])
def test_stale_statistics_explain_only_what_recalibrating_takes_away(renewed: float, in_training: float) -> None:
    """What recalibrating leaves on training data too, as batch noise, is no matter of the validation data."""
    history = measured(run(SimLayer(momentum=0.998)), inference=3.0, batch=1.0, recalibrated=in_training)
    there = measured(history, inference=6.0, batch=1.0, recalibrated=renewed).evidence[0].passes
    history = replace(history, evidence=(replace(history.evidence[0], validation=there),))
    told = (renewed, in_training) == (5.0, 1.0)
    assert (CAUSE in causes(history)) == told and causes(history)
    assert ("recalibrated 5, batch statistics 1" in finding(history, CAUSE)["summary"]) == told


def beside_validation(history: History, validation: dict[str, Any], **training: Any) -> History:
    """Measured on many batches of both data."""
    history = measured(history, **training)
    there = measured(history, **validation).evidence[0].passes
    return replace(history, evidence=(replace(history.evidence[0], validation=there),))


@pytest.mark.parametrize(
    ("in_training", "renewed", "expected"),
    [
        (1.8, 1.0, {"drift": "error"}),
        (1.8, 2.0, {CAUSE: "error", "drift": "warning"}),  # newer statistics do not serve validation data
        (1.4, 1.0, {"drift": "error"}),  # of what training data suffer it would be a note
    ],
)
def test_a_lag_that_harms_validation_more_is_no_shift(
    in_training: float, renewed: float, expected: dict[str, str]
) -> None:
    """Validation losses may be far more sensitive to it; recalibrated statistics of training data serve them."""
    there = {"inference": 3.0, "batch": 1.0, "recalibrated": renewed}
    history = beside_validation(pose_network(), there, inference=in_training, batch=1.2, recalibrated=1.0)
    assert causes(history) == expected
    if CAUSE in expected:
        return
    assert behind(history, CAUSE) == "drift"
    suffer = "Validation data suffer (3 against 1); recalibrated statistics of training data serve them (1)."
    assert suffer in finding(history, "drift")["summary"]
    assert run_report(history)["headline"].startswith("On validation data") == (in_training < 1.5)


def test_statistics_that_warm_up_are_no_shift() -> None:
    """Where labels are noisy, the loss on training data hardly shows what on clean validation data is clear."""
    warming = run(SimLayer(momentum=0.99), steps=130, planned=900, gain=0.0, validation=(1.0, 1.5))
    assert CAUSE in causes(put(warming, "recalibrated", [1.5] * len(warming.losses), first=0, probe=1))
    history = put(warming, "recalibrated", [1.0] * len(warming.losses), first=0, probe=1)
    assert causes(history) == {"warming-up": "info"}
    assert behind(history, CAUSE) == "warming-up"
    assert "Validation data suffer" in finding(history, "warming-up")["summary"]


@pytest.mark.parametrize(("batch", "expected"), [(1.0, "frozen-mismatch"), (2.9, None)])
def test_frozen_layers_that_fit_neither_data_are_no_shift(batch: float, expected: str | None) -> None:
    """Batch statistics in every layer are held against batch statistics in every layer, on both data."""
    training: dict[str, Any] = {
        "inference": 3.0,
        "training": 3.0,
        "batch_as_trained": 3.0,
        "batch": batch,
        "recalibrated_all": batch,
    }
    history = beside_validation(run(FROZEN_OFF), {"inference": 3.2, "batch": 1.1}, recalibrated=3.0, **training)
    assert behind(history, CAUSE) == expected
    assert (CAUSE in causes(history)) == (expected is None)


def test_frozen_layers_are_recalibrated_too() -> None:
    history = run(FROZEN_FIT, validation=(1.2, 5.0))
    assert "recalibrate(model, data, batches=200, frozen=True)" in finding(history, CAUSE)["fix"]
    assert "frozen=True" not in finding(run(CALM, validation=(1.2, 5.0)), CAUSE)["fix"]


def test_an_error_is_above_its_own_limit() -> None:
    """A loss that has hardly fallen is judged by its fall, and so is the limit that is printed."""
    history = level()
    fall = np.linspace(1.3, 1.0, len(history.losses))
    for probe, kind, above in ((0, "batch", 0.0), (0, "inference", 0.0), (1, "batch", 0.0), (1, "inference", 0.4)):
        put(history, kind, fall + above, probe=probe)
    found = finding(history, CAUSE)
    gap = found["evidence"]["validation"]
    assert found["severity"] == "error" and gap["value"] >= 2 * gap["limit"]


@pytest.mark.parametrize(("in_training", "there"), [(1.45, None), (1.2, "loses more"), (1.0, "fit the training data")])
def test_a_gap_that_training_data_have_too_is_no_shift(in_training: float, there: str | None) -> None:
    """Just below a warning on training data and just above on validation data is one gap."""
    validation = {"inference": 1.54, "batch": 1.0, "recalibrated": 1.54}
    history = beside_validation(level(), validation, inference=in_training, batch=1.0, recalibrated=in_training)
    found = finding(history, CAUSE)
    if there is None:
        assert found["status"] == "pass" and "On training data: inference 1.45" in found["summary"]
    else:
        assert found["severity"] == "warning" and there in found["summary"]
