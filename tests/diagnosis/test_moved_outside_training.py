"""Statistics that something else than the training step has moved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tb_bnlens.history import Event, History
from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, causes, finding, measured, run

CAUSE = "moved-outside-training"
ALL = {"updating": (0, 1, 2), "settled": (0, 1, 2)}


def moved(step: int = 600, **other: Any) -> History:
    history = run(CALM)
    event = Event(step, "outside", "the moving statistics of 3 layers changed between two training steps", (0, 1, 2))
    history = replace(history, manifest=replace(history.manifest, events=(event,)))
    passes = {"inference": 3.0, "batch": 1.0, "recalibrated": 1.0, "put_right__settled": 1.0, "replay_0.5": 1.0}
    return measured(history, groups=ALL, layers={"error_p95": [2.0] * 3}, **{**passes, **other})


test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, moved)


def test_it_is_told_where_recalibrating_cures() -> None:
    found = finding(moved(), CAUSE)
    assert causes(moved()) == {CAUSE: "error"}
    assert found["share"] == pytest.approx(1.0) and found["first_step"] == 600
    assert "recalibrate" in found["rescue"] and "training=False" in found["fix"]


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
