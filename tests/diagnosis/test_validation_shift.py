"""Moving statistics that fit the training data and not the validation data."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.diagnosis.checks import silence_of
from tests.diagnosis.runs import CALM, behind, causes, finding, measured, run
from tests.simulation import SimLayer

CAUSE = "validation-shift"

test_silenced = silence_of(CAUSE, lambda: run(CALM, validation=(1.2, 5.0)))


def test_validation_data_with_other_statistics() -> None:
    history = run(CALM, validation=(1.2, 5.0))
    assert causes(history) == {CAUSE: "error"}
    assert behind(history, "overfitting") == CAUSE


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
