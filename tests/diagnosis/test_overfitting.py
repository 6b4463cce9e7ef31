"""Validation is worse than training in both modes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tb_bnlens.history import PassResult
from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, behind, causes, finding, measured, ruled_out, run, summary
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


def test_a_gap_that_explains_little_is_no_agreement_of_the_modes() -> None:
    found = finding(run(CALM, validation=(4.0, 5.0)), CAUSE)
    assert "Their own statistics help too little to explain it, so this is not BatchNorm" in found["summary"]
    assert "in order" not in found["next"]


def test_what_is_ruled_out_claims_no_more_than_was_measured() -> None:
    """Validation data may be of another kind although their own statistics do not help."""
    assert "statistics that do not fit the validation data" in ruled_out(run(CALM, validation=(20.0, 5.0)), CAUSE)


def test_modes_that_differ_are_another_cause() -> None:
    history = run(SimLayer(samples=4), noise_penalty=2.0, validation=(5.0, 5.0))
    assert finding(history, CAUSE)["status"] == "another_cause"
    assert behind(history, CAUSE) == "batch-noise"


@pytest.mark.parametrize(("renewed", "own"), [(5.0, True), (1.1, False)])
def test_stale_statistics_explain_only_what_recalibrating_takes_away(renewed: float, own: bool) -> None:
    history = measured(run(SimLayer(momentum=0.998)), inference=3.0, batch=1.0, recalibrated=1.0)
    there = measured(history, inference=6.0, batch=renewed, recalibrated=renewed).evidence[0].passes
    history = replace(history, evidence=(replace(history.evidence[0], validation=there),))
    found = finding(history, CAUSE)
    assert "momentum-too-high" in causes(history)
    assert (found["status"], found["severity"]) == (("fail", "info") if own else ("another_cause", "none"))
    assert ("With recalibrated statistics the loss is 5 on validation data" in found["summary"]) == own


def test_validation_no_better_than_the_start_may_have_wrong_labels() -> None:
    """As where the labels of the validation data are shuffled: the network knows nothing of those."""
    worse, better = (finding(run(CALM, validation=(x, x)), CAUSE) for x in (9.0, 2.5))
    assert "or their labels are wrong" in worse["summary"] and worse["next"].startswith("First look at some validation")
    assert "labels" not in better["summary"] and better["next"].startswith("More data")


def test_one_probe_of_validation_data_does_not_tell() -> None:
    history = run(CALM, validation=(5.0, 5.0))
    steps = history.loss_steps.copy()
    steps[:-1] = range(1, len(steps))
    assert finding(replace(history, loss_steps=steps), CAUSE)["status"] == "not_evaluated"


def test_a_single_batch_of_validation_data_tells_what_is_beyond_doubt() -> None:
    """Its spread is not known, and a loss many times that of training is no luck."""

    def told(there: float) -> bool:
        history = measured(run(CALM), inference=0.1, batch=0.1, recalibrated=0.1)
        (found,) = history.evidence
        one = {name: PassResult(np.array([there]), np.array([480])) for name in ("inference", "batch", "recalibrated")}
        return CAUSE in causes(replace(history, evidence=(replace(found, validation=one),)))

    assert told(1.9) and not told(0.5)
