"""Small batches that training suffers from."""

from __future__ import annotations

from typing import Any

import pytest

from tb_bnlens.diagnosis.compositions import FEW_ROWS
from tb_bnlens.history import History
from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.limits import ABOVE, BELOW
from tests.diagnosis.runs import causes, finding, level, measured, put

CAUSE = "noisy-training"

test_limits = limits_of(CAUSE)


def noisy(batch: float = 1.3, pooled: float = 0.8, scatter: float = 0.7, start: float = 1.5, size: int = 32) -> History:
    history = put(level(), "batch", [start] * 3, first=0)
    layers = {"noise_mean": [scatter] * 3, "between_within": [0.9] * 3}
    passes: dict[str, Any] = {"inference": 0.7, "batch": batch, "recombined": batch, "pooled": pooled}
    return measured(history, scatter=0.01, layers=layers, size=size, **passes)


test_silenced = silence_of(CAUSE, noisy)


@pytest.mark.parametrize(("batch", "severity"), [(1.1, "info"), (1.5, "warning")])
def test_it_costs_training_and_not_inference(batch: float, severity: str) -> None:
    history = noisy(batch)
    assert causes(history) == {CAUSE: severity}
    assert "accumulation does not count" in finding(history, CAUSE)["fix"]


@pytest.mark.parametrize(
    "changed",
    [
        {"batch": 0.9},  # little
        {"pooled": 1.3},  # larger batches do no better: it is something else
        {"scatter": 0.2},  # not few rows
        {"start": 15.0},  # it has learned well for all that
    ],
)
def test_what_looks_alike(changed: dict[str, Any]) -> None:
    assert causes(noisy(**changed)) == {}


def test_few_rows_are_eight() -> None:
    assert causes(noisy(scatter=BELOW * FEW_ROWS)) == {}
    assert causes(noisy(scatter=ABOVE * FEW_ROWS)).keys() == {CAUSE}


def test_the_positions_of_few_images_are_no_rows() -> None:
    """Their mean scatters little, and each image sets much of it."""
    history = noisy(scatter=0.1, size=2)
    assert causes(history).keys() == {CAUSE}
    assert "A batch has 2 rows" in finding(history, CAUSE)["summary"]
    assert causes(noisy(scatter=0.1, size=9)) == {}


def test_of_two_rows_a_layer_passes_on_which_is_larger() -> None:
    """Larger batches of the same network do no better: it has learned with pairs."""
    pairs = noisy(batch=0.72, pooled=0.72, size=2)
    assert causes(pairs) == {CAUSE: "info"}
    assert "which of the two is larger" in finding(pairs, CAUSE)["summary"]
    assert causes(noisy(batch=0.72, pooled=0.72, size=3)) == {}
    assert causes(noisy(batch=0.72, pooled=0.72, size=2, scatter=0.1)) == {}, "the positions of images are more values"
    assert causes(noisy(batch=0.72, pooled=0.72, size=2, start=15.0)) == {}, "it has learned well for all that"
