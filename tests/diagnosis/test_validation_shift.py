"""Moving statistics that fit the training data and not the validation data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tb_bnlens.history import PassResult
from tests.diagnosis.checks import silence_of
from tests.diagnosis.runs import CALM, behind, causes, finding, level, measured, run, summary
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


@pytest.mark.parametrize(("left", "status"), [(1.0, "another_cause"), (4.0, "fail")])
def test_what_fits_the_training_data_may_not_fit_the_validation_data(left: float, status: str) -> None:
    """A small lag on training data explains no more than what statistics without it give back on validation data."""
    history = measured(level(), inference=2.0, batch=1.0, recalibrated=1.0)
    (found,) = history.evidence
    sizes = found.passes["batch"].sizes
    there = {"inference": 5.0, "batch": 1.0, "recalibrated": left}
    validation = {name: PassResult(np.full(len(sizes), loss), sizes, {}) for name, loss in there.items()}
    history = replace(history, evidence=(replace(found, validation=validation),))
    assert finding(history, CAUSE)["status"] == status
    assert "train-inference-gap" in causes(history)
    if status == "fail":
        assert "with recalibrated ones the loss is 4 there" in summary(history, CAUSE)


def test_validation_data_of_one_kind_pass() -> None:
    assert finding(run(CALM, validation=(1.1, 1.1)), CAUSE)["status"] == "pass"
    assert finding(run(CALM), CAUSE)["status"] == "not_applicable"
