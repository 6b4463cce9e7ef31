"""A moving statistic that is NaN, infinite or a negative variance."""

from __future__ import annotations

from tb_bnlens.history import History
from tb_bnlens.report import run_report
from tests.diagnosis.checks import silence_of
from tests.diagnosis.runs import CALM, behind, causes, finding, put, run, summary
from tests.simulation import Sim, SimLayer, simulate

CAUSE = "non-finite-statistics"


def poisoned(*others: SimLayer) -> History:
    return simulate(Sim([*others, SimLayer("bad", poisoned_at=150)], steps=400, planned=400))


test_silenced = silence_of(CAUSE, lambda: poisoned(SimLayer("good")))


def test_poisoned_statistics() -> None:
    history = poisoned(SimLayer("good"))
    found = finding(history, CAUSE)
    assert causes(history) == {CAUSE: "error"}
    assert (found["layers"], found["steps_to_converge"]) == (["bad"], "never")
    assert 150 <= found["first_step"] <= 166
    assert "model.layers[1]" in found["rescue"] and "recalibrate" in found["rescue"]
    assert behind(history, "train-inference-gap") == CAUSE


def test_diverged_training_is_not_blamed_on_batchnorm() -> None:
    history = simulate(Sim([SimLayer(poisoned_at=100)]))
    history.losses[history.loss_steps > 100] = float("nan")
    assert "diverged" in summary(history, CAUSE)
    assert "diverged" in run_report(history)["headline"]
    assert "the last that was, at step" in run_report(history)["headline"]
    # Not grown, and yet the steps come before the data.
    assert finding(history, CAUSE)["fix"].index("learning rate") < finding(history, CAUSE)["fix"].index("Keep values")
    assert "grew" not in summary(history, CAUSE)
    put(history, "training", [1e30], first=int((history.loss_steps > 100).argmax()) - 1)
    assert "The loss grew before that, to 1e30 at step" in summary(history, CAUSE)
    assert finding(history, CAUSE)["rescue"] == "" and "earlier step" in summary(history, CAUSE)


def test_finite_statistics_pass() -> None:
    assert finding(run(CALM), CAUSE)["status"] == "pass"
    assert "finite" in summary(run(CALM), CAUSE)
