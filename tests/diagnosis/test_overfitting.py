"""Validation is worse than training in both modes."""

from __future__ import annotations

from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, behind, causes, finding, run, summary
from tests.simulation import SimLayer

CAUSE = "overfitting"

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, lambda: run(CALM, validation=(5.0, 5.0)))


def test_overfitting_is_not_a_lag() -> None:
    assert causes(run(CALM, validation=(5.0, 5.0))) == {CAUSE: "info"}
    assert causes(run(CALM, validation=(1.1, 1.1))) == {}


def test_batches_of_validation_data_may_be_served_worst_by_their_own_statistics() -> None:
    """One class makes up most of each validation batch, and training has balanced them."""
    assert "Both modes agree" in summary(run(CALM, validation=(5.0, 5.0)), CAUSE)
    assert "own statistics do not help" in summary(run(CALM, validation=(20.0, 5.0)), CAUSE)


def test_modes_that_differ_are_another_cause() -> None:
    history = run(SimLayer(samples=4), noise_penalty=2.0, validation=(5.0, 5.0))
    assert finding(history, CAUSE)["status"] == "another_cause"
    assert behind(history, CAUSE) == "batch-noise"
