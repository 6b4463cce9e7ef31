"""Moving statistics that fit the training data and not the validation data."""

from __future__ import annotations

from tests.diagnosis.checks import silence_of
from tests.diagnosis.runs import CALM, behind, causes, finding, run
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
