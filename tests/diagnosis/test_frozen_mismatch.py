"""Frozen layers on other data: harmful or harmless."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tb_bnlens.history import Evidence, History
from tb_bnlens.metadata import Moment
from tb_bnlens.report import run_report
from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, FROZEN_FIT, FROZEN_OFF, causes, finding, measured, rows, run, summary
from tests.simulation import Sim, SimLayer, simulate

CAUSE = "frozen-mismatch"

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, lambda: run(FROZEN_OFF))


def test_on_other_data_harmful() -> None:
    history = run(FROZEN_OFF)
    assert causes(history) == {CAUSE: "error"}
    assert "frozen=True" in finding(history, CAUSE)["fix"]


def test_new_statistics_that_cost_accuracy_are_no_rescue() -> None:
    """The head has learned with the old ones: with others the loss is lower, and so is the accuracy."""
    right = {"inference": 0.43, "batch": 0.25, "recalibrated_all": 0.26}
    passes: dict[str, Any] = {
        "size": 100,
        "inference": 50.0,
        "batch_as_trained": 50.0,
        "batch": 1.7,
        "recalibrated": 50.0,
        "recalibrated_all": 1.7,
    }
    history = measured(run(FROZEN_OFF), metrics={k: {"accuracy": v} for k, v in right.items()}, **passes)
    found = finding(history, CAUSE)
    assert found["severity"] == "warning" and found["rescue"] == ""
    assert "they give accuracy 26.0% instead of accuracy 43.0%" in found["summary"]
    assert "recalibrate" in finding(measured(run(FROZEN_OFF), **passes), CAUSE)["rescue"]


@pytest.mark.parametrize(("accuracy", "lower"), [(0.5, True), (0.6, False)])
def test_a_rescue_says_which_metric_it_lowers(accuracy: float, lower: bool) -> None:
    """A drop of a tenth of what is right, in many rows, is beyond chance and below a warning."""
    passes: dict[str, Any] = {"inference": 5.0, "batch_as_trained": 5.0, "batch": 1.7, "recalibrated": 5.0}
    right = {"inference": 0.59, "batch": 0.5, "recalibrated_all": accuracy}
    history = measured(
        run(FROZEN_OFF),
        size=1000,
        metrics={k: {"accuracy": v} for k, v in right.items()},
        recalibrated_all=1.7,
        **passes,
    )
    rescue = finding(history, CAUSE)["rescue"]
    assert "recalibrate" in rescue
    assert ("# but accuracy falls from 59.0% to 50.0%\n" in rescue) == lower


def test_channels_that_hardly_vary_are_constant_too() -> None:
    """They have no relative error, and a distance all the same."""
    for layer, reason in ((FROZEN_OFF, "never: the statistics are constant"), (CALM, "not measured: its channels")):
        history = rows(run(layer), error_p50=np.nan, error_p95=np.nan, error_max=np.nan, channels_collapsed=16.0)
        history = rows(history, distance_rms=1.0)
        assert all(x["steps_reason"].startswith(reason) for x in run_report(history)["layers"])


def test_on_other_data_harmless() -> None:
    history = run(FROZEN_OFF, gain=0.0)
    assert causes(history) == {CAUSE: "info"}
    assert "cannot be judged from the losses" in summary(history, CAUSE)
    assert "check their preprocessing" in summary(history, CAUSE)
    assert finding(history, CAUSE)["fix"] == ""
    passes: dict[str, Any] = {"inference": 1.0, "batch_as_trained": 1.0, "batch": 1.01, "recalibrated_all": 1.02}
    said = summary(measured(history, recalibrated=1.0, **passes), CAUSE)
    assert "(inference loss 1, 1.02 with new statistics in these)" in said


def off(mismatched: Any, **passes: Any) -> History:
    """Frozen layers on other data, whose network gains nothing by other statistics."""
    usual = {"inference": 1.4, "batch_as_trained": 1.4, "training": 1.4, "recalibrated": 1.4}
    usual |= {"batch": 1.9, "recalibrated_all": 1.9}
    samples = {"batch_as_trained": {"mean": 1.4, "q01": 1.34}, "batch": {"mean": 1.0, "q01": 0.2}}
    history = measured(run(FROZEN_OFF), samples=samples, mismatched=mismatched, **{**usual, **passes})
    return replace(history, manifest=replace(history.manifest, ended="planned"))


def test_no_loss_shows_what_statistics_cost_that_training_runs_on() -> None:
    """A head that has learned with them is spoilt by others, whatever it would have learned with those."""
    learned = off(mismatched=4.0)
    assert causes(learned) == {CAUSE: "info"}
    said = run_report(learned)
    assert "does not suffer" not in said["verdict"] and "No BatchNorm problem found" not in said["verdict"]
    assert "cannot show what constant statistics cost, since training runs on them too" in said["headline"]


def test_the_loss_is_no_witness_where_training_has_learned_nothing() -> None:
    """What new statistics give to a head without knowledge is luck of its initial values."""
    at_chance = [1.38, 1.42, 1.39, 1.41] * 3
    for with_new, severity in ((1.9, "warning"), (1.38, "warning"), (1.2, "warning"), (0.4, "error")):
        history = off(at_chance, batch=with_new, recalibrated_all=with_new)
        assert causes(history) == {CAUSE: severity}
        assert "frozen=True" in finding(history, CAUSE)["fix"]
    found = finding(off(at_chance), CAUSE)
    assert "learned nothing with them: its loss is 1.4," in found["summary"] and found["rescue"] == ""
    live = off(at_chance)
    assert causes(replace(live, manifest=replace(live.manifest, ended=""), evidence=live_evidence(live))) == {
        CAUSE: "info"
    }
    # A loss that takes no targets says nothing of what was learned.
    assert causes(off(1.4)) == {CAUSE: "info"}


def test_a_frozen_layer_that_training_normalizes_by_the_batch_is_judged_by_the_loss() -> None:
    history = off(1.95, batch=1.4, training=1.4, inference=1.41, batch_as_trained=1.9)
    assert "The loss does not suffer" in summary(history, CAUSE)


def live_evidence(history: History) -> tuple[Evidence, ...]:
    """The measurement as one in the course of training."""
    return tuple(replace(each, moment=Moment.INTERIM) for each in history.evidence)


def test_on_the_same_data_raises_nothing() -> None:
    assert causes(run(FROZEN_FIT)) == {}
    assert finding(run(CALM), CAUSE)["status"] == "not_applicable"


def test_lagging_layers_are_not_blamed_for_frozen_ones() -> None:
    frozen = [replace(FROZEN_OFF, name=f"frozen_{i}") for i in range(3)]
    history = simulate(Sim([*frozen, SimLayer("head", momentum=0.9)], steps=300, planned=300))
    assert causes(history) == {CAUSE: "error"}
