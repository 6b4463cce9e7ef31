"""Rows of weight 0 that move the statistics."""

from __future__ import annotations

from tb_bnlens.history import History
from tests.diagnosis.checks import silence_of
from tests.diagnosis.runs import behind, causes, finding, level, measured

CAUSE = "padded-rows"


def padded(counted: float = 0.8, recalibrated: float = 2.8, distance: float = 0.4, between: float = 9.0) -> History:
    layers = {
        "counted_distance_rms": [distance] * 3,
        "reference_noise": [0.1] * 3,
        "between_within": [between] * 3,
    }
    return measured(level(), inference=3.0, batch=1.0, recalibrated=recalibrated, counted=counted, layers=layers)


test_silenced = silence_of(CAUSE, padded)


def test_statistics_of_the_rows_that_count_cure() -> None:
    history = padded()
    assert causes(history) == {CAUSE: "error"}
    assert behind(history, "unlike-batches") == behind(history, "train-inference-gap") == CAUSE
    found = finding(history, CAUSE)
    assert found["share"] == 1.0 and "0.8 (measured on 12 batches)" in found["rescue"]


def test_statistics_of_all_rows_cure_as_well() -> None:
    assert CAUSE not in causes(padded(recalibrated=0.8))


def test_they_do_not_cure() -> None:
    assert CAUSE not in causes(padded(counted=3.0))


def test_rows_of_weight_0_that_are_like_the_others() -> None:
    assert CAUSE not in causes(padded(distance=0.05))


def test_no_rows_of_weight_0() -> None:
    history = measured(level(), inference=3.0, batch=1.0, recalibrated=2.8)
    assert finding(history, CAUSE)["status"] == "not_applicable"
