"""Statistics that something else than the training step has moved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tb_bnlens.history import Event, History
from tb_bnlens.metadata import LAYER_INDEX
from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, causes, finding, measured, run

CAUSE = "moved-outside-training"
ALL = {"updating": (0, 1, 2), "settled": (0, 1, 2)}


APART = {"update_explained": [0.8] * 3, "decay_observed": [0.81] * 3, "decay_expected": [0.9] * 3}
"""A step that updates the layers twice, and of which the recorded batch explains one update."""


def moved(step: int = 600, **other: Any) -> History:
    history = run(CALM)
    event = Event(step, "outside", "the moving statistics of 3 layers changed between two training steps", (0, 1, 2))
    history = replace(history, manifest=replace(history.manifest, events=(event,)))
    passes = {"inference": 3.0, "batch": 1.0, "recalibrated": 1.0, "put_right__settled": 1.0, "replay_0.5": 1.0}
    layers = {"error_p95": [2.0] * 3, **other.pop("layers", {})}
    return measured(history, groups=ALL, layers=layers, **{**passes, **other})


test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, moved)


def leapt(**other: Any) -> History:
    """At the last record but one the statistics moved all at once; nobody saw it happen."""
    history = moved(**other)
    layers = history.layers.copy()
    layers[:, :, LAYER_INDEX["since_max"]] = 2.0
    layers[-2, :, LAYER_INDEX["since_max"]] = 100.0
    layers[:, :, LAYER_INDEX["distance_rms"]] = np.where(np.arange(len(layers)) < len(layers) - 2, 0.01, 1.0)[:, None]
    steps = np.append(history.steps[:-1], history.steps[-2] + 2)
    return replace(history, layers=layers, steps=steps, manifest=replace(history.manifest, events=()))


def test_a_move_between_two_batches_that_nobody_saw() -> None:
    found = finding(leapt(), CAUSE)
    assert causes(leapt()) == {CAUSE: "error"}
    assert "all at once" in found["summary"] and "a single batch" in found["summary"]
    assert causes(leapt(inference=1.02)) == {}


def test_it_is_told_where_recalibrating_cures() -> None:
    found = finding(moved(), CAUSE)
    assert causes(moved()) == {CAUSE: "error"}
    assert found["share"] == pytest.approx(1.0) and found["first_step"] == 600
    assert "recalibrate" in found["rescue"] and "training=False" in found["fix"]


def test_recalibrating_is_no_rescue_where_a_step_calls_the_model_on_other_data_as_well() -> None:
    found = finding(moved(step=590, layers=APART), CAUSE)
    assert found["status"] == "fail" and found["rescue"] == "" and "training=False" in found["fix"]


def test_what_is_seen_after_the_last_step_alone_may_be_its_rest() -> None:
    """As in a GAN, whose discriminator is called for the generator after its batch was recorded."""
    assert causes(moved(layers=APART)) == {"unseen-updates": "error"}
    assert CAUSE in causes(moved())


def test_a_change_that_does_no_harm_is_silent() -> None:
    assert causes(moved(inference=1.02)) == {}


def test_a_change_that_is_forgotten_explains_nothing() -> None:
    """At momentum 0.9 a tenth of it is left after 22 steps."""
    assert CAUSE in causes(moved(step=600 - 20))
    assert CAUSE not in causes(moved(step=600 - 24))


def test_what_recurs_also_follows_the_last_step() -> None:
    """Nothing is compared after the last step, and of many changes not all are reported."""

    def recurring(*steps: int) -> History:
        history = moved()
        events = tuple(replace(history.manifest.events[0], step=step) for step in steps)
        return replace(history, manifest=replace(history.manifest, events=events))

    assert CAUSE in causes(recurring(120, 240, 360, 480))
    assert CAUSE not in causes(recurring(100, 200, 300))
    assert CAUSE in causes(recurring(*range(50, 401, 50)))
    assert CAUSE not in causes(recurring(*range(30, 241, 30)))


def test_what_recalibrating_does_not_cure_is_another_cause() -> None:
    assert CAUSE not in causes(moved(recalibrated=3.0, put_right__settled=3.0))
