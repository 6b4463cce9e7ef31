"""The initial statistics are still there, and enough steps are left."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tb_bnlens.analysis import outlook
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.report import run_report
from tests.diagnosis.checks import silence_of
from tests.diagnosis.runs import CALM, behind, causes, finding, run, summary
from tests.simulation import SimLayer, band_locator

CAUSE = "warming-up"

test_silenced = silence_of(CAUSE, lambda: band_locator(0.99, steps=100, planned=6000))


def test_a_run_with_enough_steps_left_is_a_note() -> None:
    history = band_locator(0.99, steps=100, planned=6000)
    report = run_report(history)
    assert report["severity"] == "info"
    assert causes(history) == {CAUSE: "info"}
    assert behind(history, "train-inference-gap") == CAUSE
    assert "Do not trust validation metrics before then" in report["reasons"][0]
    assert "No BatchNorm problem" not in report["verdict"]


def test_the_losses_are_of_the_step_at_which_they_were_measured() -> None:
    history = band_locator(0.99, steps=100, planned=6000)
    assert " now, against" in summary(history, CAUSE)
    earlier = replace(history, loss_steps=np.minimum(history.loss_steps, 90))
    assert " at step 90, against" in summary(earlier, CAUSE)


def test_no_step_that_is_over_is_one_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlook.Outlook, "steps", 0.0)
    found = finding(band_locator(0.99, steps=100, planned=6000), CAUSE)
    assert "and should be about to converge at step 100 of 6,000" in found["summary"]
    assert "0 steps" not in found["next"] + str(found["ruled_out"])
    assert "It takes no more steps until" in str(found["ruled_out"])


def test_steps_in_terms_of_the_loss_come_true() -> None:
    early = band_locator(0.99, layers=6, steps=150, planned=4000)
    predicted = 150 + finding(early, CAUSE)["steps_to_converge"]
    late = band_locator(0.99, layers=6, steps=1000, planned=4000, probe_every=5)
    inference, target = late.loss("inference"), late.loss("recalibrated") * 1.1
    observed = int(late.loss_steps[(inference > target).nonzero()[0][-1]])
    assert predicted == pytest.approx(observed, rel=0.1)


def test_too_few_steps_are_another_cause() -> None:
    history = band_locator(steps=100, planned=300)
    assert finding(history, CAUSE)["status"] == "another_cause"
    assert behind(history, CAUSE) == "momentum-too-high"


@pytest.mark.parametrize("steps", [1, 20, 100, 400])
def test_a_run_without_a_plan_raises_no_alarm_while_it_lasts(steps: int) -> None:
    running = band_locator(0.99, steps=steps, planned=None)
    assert set(causes(running).values()) <= {"info"}
    if CAUSE in causes(running):
        assert "How many steps are planned is not known" in finding(running, CAUSE)["summary"]


def test_a_run_without_a_plan_is_expected_to_have_some_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    history = band_locator(steps=100, planned=None)
    needed = 100 + Facts(history).outlook.steps
    assert needed > outlook.UNPLANNED_STEPS and "momentum-too-high" in causes(history)
    monkeypatch.setattr(outlook, "UNPLANNED_STEPS", math.ceil(needed))
    assert set(causes(history).values()) <= {"info"}


def test_a_run_without_a_plan_is_expected_to_go_on_for_as_long_as_it_has_had() -> None:
    early, late = (Facts(band_locator(0.9995, steps=steps, planned=None)).outlook for steps in (100, 3_000))
    assert early.remaining == outlook.UNPLANNED_STEPS - 100 and late.remaining == 3_000


def test_nothing_left_of_the_start_passes_without_a_plan() -> None:
    assert finding(run(CALM, planned=None), CAUSE)["status"] == "pass"


@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_has_just_begun_raises_no_alarm(seed: int) -> None:
    for steps in (1, 2, 5, 20):
        history = run(SimLayer(momentum=0.99), seed=seed, steps=steps, planned=5000)
        assert set(causes(history).values()) <= {"info"}, (steps, causes(history))
