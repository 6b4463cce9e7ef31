"""Statistics gathered under dropout, used without."""

from __future__ import annotations

from typing import Any

import pytest

from tb_bnlens.history import History
from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, causes, finding, measured, run

CAUSE = "variance-shift"
ALL = {"updating": (0, 1, 2), "settled": (0, 1, 2)}
UNDER_DROPOUT = {
    "distance_rms": [0.3] * 3,
    "error_p95": [2.0] * 3,
    "mode_distance_rms": [0.5] * 3,
    "with_dropout_distance_rms": [0.05] * 3,
    "mode_variance_p50": [1.6] * 3,
    "update_explained": [0.7, 0.7, 0.7],
}


def shifted(**other: Any) -> History:
    passes = {"inference": 3.0, "batch": 1.0, "with_dropout": 2.8, "recalibrated": 1.0, "put_right__settled": 1.0}
    return measured(run(CALM), groups=ALL, layers=UNDER_DROPOUT, **{**passes, "replay_0.5": 2.0, **other})


test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, shifted)


def test_statistics_with_dropout_on_make_the_gap() -> None:
    found = finding(shifted(), CAUSE)
    assert causes(shifted()) == {CAUSE: "error"}
    assert found["share"] == pytest.approx(0.9) and len(found["layers"]) == 3
    assert "recalibrate" in found["rescue"] and "1" in found["rescue"]
    assert "Dropout" in found["fix"] and "learning_rate" not in found["fix"] + found["rescue"]


def test_dropout_that_leaves_the_statistics_as_they_are_is_no_cause() -> None:
    assert causes(shifted(inference=1.05, with_dropout=1.04)) == {}


def test_statistics_of_the_past_are_another_cause() -> None:
    """Statistics of the present cure, however they are gathered."""
    told = causes(shifted(with_dropout=1.05))
    assert CAUSE not in told and told


def test_both_are_named_where_each_takes_enough() -> None:
    lag = {"updating": (0, 1, 2), "from_start": (0,), "settled": (1, 2)}
    history = measured(
        run(CALM),
        groups=lag,
        layers=UNDER_DROPOUT,
        inference=5.0,
        batch=1.0,
        with_dropout=2.6,
        recalibrated=1.0,
        put_right__from_start=2.6,
        put_right__settled=3.4,
    )
    told = causes(history)
    assert told.keys() >= {CAUSE, "momentum-too-high"}
    shares = [finding(history, name)["share"] for name in (CAUSE, "momentum-too-high")]
    assert shares == pytest.approx([0.4, 0.6])
