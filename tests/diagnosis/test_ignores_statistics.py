"""Layers that normalize by the batch at inference."""

from __future__ import annotations

from typing import Any

import pytest

from tb_bnlens.history import History
from tests.diagnosis.checks import silence_of
from tests.diagnosis.runs import causes, finding, level, measured

CAUSE = "ignores-statistics"


def wired(alone: float = 5.0, rows: Any = (1.0, 0.0, 0.0), **more: Any) -> History:
    return measured(level(), inference=1.0, batch=1.0, one_at_a_time=alone, layers={"batch_at_inference": rows}, **more)


test_silenced = silence_of(CAUSE, wired)


def test_layers_are_named_and_what_single_rows_lose() -> None:
    found = finding(wired(on_moving=0.8), CAUSE)
    assert (found["status"], found["severity"], found["layers"]) == ("fail", "error", ["a"])
    assert "1 of 3 BatchNorm layers normalizes" in found["summary"] and "loss is 5" in found["summary"]
    assert "0.8 (measured on 12 batches)" in found["rescue"] and "trainable = False" in found["rescue"]


@pytest.mark.parametrize(("alone", "severity"), [(1.0, "info"), (1.6, "warning"), (2.1, "error")])
def test_harmless_or_not_predictions_depend_on_the_batch(alone: float, severity: str) -> None:
    assert causes(wired(alone)) == {CAUSE: severity}


def test_layers_on_their_moving_statistics() -> None:
    assert causes(wired(rows=(0.0, 0.0, 0.0))) == {}
    assert finding(wired(rows=(0.0, 0.0, 0.0)), CAUSE)["status"] == "pass"
    assert finding(level(), CAUSE)["status"] == "not_evaluated"
