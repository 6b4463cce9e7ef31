"""The loss before the update and after it."""

from __future__ import annotations

from tests.diagnosis.checks import silence_of
from tests.diagnosis.runs import CALM, behind, causes, finding, run, summary

CAUSE = "before-after-update"

test_silenced = silence_of(CAUSE, lambda: run(CALM, update_effect=3.0, loss_overrides={"fit_loss": 1.0}))


def test_an_update_that_changes_the_loss() -> None:
    history = run(CALM, update_effect=3.0, loss_overrides={"fit_loss": 1.0})
    assert causes(history) == {CAUSE: "info"}
    assert "The weight update accounts for +3" in summary(history, CAUSE)
    assert "learning rate" in finding(history, CAUSE)["next"]


def test_averaging_over_an_epoch_is_no_news() -> None:
    # In a run that still learns the epoch's mean is above the loss now.
    assert causes(run(CALM, loss_overrides={"fit_loss": 4.0})) == {}


def test_more_dropout_is_another_cause() -> None:
    history = run(CALM, update_effect=1.0, dropout=6.0)
    assert finding(history, CAUSE)["status"] == "another_cause"
    assert behind(history, CAUSE) == "dropout-gap"
