"""Statistics that are updated by other data than the recorded batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tb_bnlens.history import History
from tb_bnlens.metadata import LAYER_INDEX
from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, behind, causes, finding, measured, of_torch, run
from tests.simulation import SimLayer

CAUSE = "unseen-updates"
ALL = {"updating": (0, 1, 2), "settled": (0, 1, 2)}
TWICE = {
    "update_explained": [0.8] * 3,
    "decay_observed": [0.81] * 3,
    "decay_expected": [0.9] * 3,
    "mode_distance_rms": [0.0] * 3,
    "error_p95": [1.0] * 3,
}


def mixed(layers: Any = TWICE, **other: Any) -> History:
    passes = {"inference": 3.0, "batch": 1.0, "recalibrated": 1.0, "put_right__settled": 1.0, "replay_0.5": 1.0}
    return measured(run(CALM), groups=ALL, layers=layers, **{**passes, **other})


test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, mixed)


def test_updates_are_counted_from_the_decay() -> None:
    found = finding(mixed(), CAUSE)
    assert causes(mixed()) == {CAUSE: "error"}
    assert "2 updates a step" in found["summary"] and "concatenate" in found["fix"]
    # Statistics of the recorded batches may ruin what the model says of the others.
    assert found["rescue"] == "" and "Predictions for the other data" in found["fix"]
    counted = of_torch(mixed({**TWICE, "calls": [1.0] * 3}))
    counted.layers[..., LAYER_INDEX["updates"]] *= 2
    assert "model.eval()" in finding(counted, CAUSE)["fix"]
    assert "set_momentum" not in found["fix"] + found["rescue"] and found["steps_to_converge"] == "never"


def test_a_step_that_transforms_its_input() -> None:
    once = {**TWICE, "decay_observed": [0.9] * 3}
    found = finding(mixed(once), CAUSE)
    assert found["status"] == "fail" and "transforms its input" in found["summary"]
    assert "Right for data like the recorded batches" in found["rescue"]


def test_more_updates_than_the_lens_sees_where_none_could_be_compared() -> None:
    blind = {**TWICE, "update_explained": [np.nan] * 3}
    found = finding(mixed(blind, **{"replay_0.5": 3.0}), CAUSE)
    assert found["status"] == "fail" and "2 updates a step" in found["summary"]
    assert "explained" not in found["evidence"]
    # Several batches of the same kind leave statistics that lag, and less memory cures that.
    assert causes(mixed(blind)) == {"drift": "error"}


def test_several_updates_a_step_are_no_drift_where_no_replay_tells() -> None:
    blind = {**TWICE, "update_explained": [np.nan] * 3}
    history = measured(
        run(CALM), groups=ALL, layers=blind, inference=3.0, batch=1.0, recalibrated=1.0, put_right__settled=1.0
    )
    assert CAUSE in causes(history) and "drift" not in causes(history)


def test_batches_whose_losses_differ_explain_nothing_where_their_own_statistics_serve() -> None:
    """An agent acts in training mode between the steps, and old batches of its replay buffer are harder."""
    blind = {**TWICE, "update_explained": [np.nan] * 3}
    aged = np.linspace(1.9, 0.1, 12)
    own = {
        "batch": aged,
        "recalibrated": aged,
        "put_right__settled": aged,
        "replay_0.5": 3.0,
        "recombined_inference": 3.0,
    }
    history = mixed(blind, recombined=1.0 + 0.05 * np.resize([1.0, -1.0], 12), inference=2.0 + aged, **own)
    assert causes(history) == {CAUSE: "error"}
    assert behind(history, "unlike-batches") == CAUSE
    # In blocks of one source the mean of all is better than the last block, and fits none.
    fits_none = {**own, "recalibrated": 2.0, "put_right__settled": 2.0}
    in_blocks = mixed(blind, recombined=1.0 + 0.05 * np.resize([1.0, -1.0], 12), inference=4.0 + aged, **fits_none)
    assert "unlike-batches" in causes(in_blocks) and CAUSE not in causes(in_blocks)
    once = {**blind, "decay_observed": [0.9] * 3}
    assert "unlike-batches" in causes(mixed(once, recombined=1.0, inference=2.0 + aged, **own))


def test_a_mixture_far_off_is_a_note_where_the_recorded_batches_do_not_suffer() -> None:
    """As in a critic that is recorded on real samples alone."""
    far = {**TWICE, "distance_rms": [0.5] * 3}
    found = finding(mixed(far, inference=0.9), CAUSE)
    assert (found["status"], found["severity"], found["rescue"]) == ("fail", "info", "")
    assert "recorded batches does not suffer" in found["summary"]


def test_updates_of_which_nothing_is_known_are_not_evaluated() -> None:
    blind = {**TWICE, "update_explained": [np.nan] * 3}
    assert finding(mixed({**blind, "decay_observed": [np.nan] * 3}), CAUSE)["status"] == "not_evaluated"
    passed = finding(mixed({**blind, "decay_observed": [0.9] * 3}), CAUSE)
    assert (passed["status"], passed["summary"]) == (
        "pass",
        "The statistics decay as with 1 times the updates that the lens sees.",
    )


def test_a_mixture_that_serves_well_is_silent() -> None:
    assert causes(mixed(inference=0.9)) == {}


def test_random_draws_before_a_layer_explain_why_updates_differ() -> None:
    assert CAUSE not in causes(mixed({**TWICE, "mode_distance_rms": [0.2] * 3}))


def test_further_updates_that_one_layer_shows_explain_a_lag_behind_the_start() -> None:
    """A batch explains a step from afar in any case, and weights that move hide the second update of a layer."""
    passes: dict[str, Any] = {"inference": 3.0, "batch": 1.0, "recalibrated": 1.0}
    layers = {**TWICE, "update_explained": [1.0, 0.9, 0.9], "decay_expected": [0.998] * 3}

    def told(first: float) -> dict[str, str]:
        decay = {"decay_observed": [first, 0.998, 0.998]}
        return causes(measured(run(SimLayer(momentum=0.998)), groups={}, layers={**layers, **decay}, **passes))

    assert told(0.998) == {"momentum-too-high": "error"}
    assert told(0.996) == {CAUSE: "error"}


def test_batches_that_explain_the_updates_are_another_cause() -> None:
    told = causes(mixed({**TWICE, "update_explained": [1.0] * 3}))
    assert CAUSE not in told and told == {"drift": "error"}
    assert finding(mixed(), "set-after-trace")["status"] == "pass"
    assert finding(mixed(), "drift")["share"] is None or pytest.approx(0.0)
