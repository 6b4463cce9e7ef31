"""PyTorch modules that normalize by the batch in eval mode, since they track no statistics."""

from __future__ import annotations

from tests.diagnosis.checks import silence_of
from tests.diagnosis.runs import CALM, causes, finding, measured, of_torch, run

CAUSE = "no-tracked-statistics"
UNTRACKED = ("layer1.0.bn1", "layer1.0.bn2")

test_silenced = silence_of(CAUSE, lambda: of_torch(run(CALM), UNTRACKED))


def test_without_a_measurement_it_is_a_note() -> None:
    history = of_torch(run(CALM), UNTRACKED)
    assert causes(history) == {CAUSE: "info"}
    assert "2 BatchNorm modules (layer1.0.bn1, layer1.0.bn2)" in finding(history, CAUSE)["summary"]


def test_single_rows_tell_the_harm() -> None:
    for alone, severity in ((4.0, "error"), (1.0, "info")):
        history = measured(run(CALM), inference=1.0, batch=1.0, recalibrated=1.0, one_at_a_time=alone)
        assert causes(of_torch(history, UNTRACKED)) == {CAUSE: severity}


def test_tracked_layers_have_nothing_of_it() -> None:
    assert finding(of_torch(run(CALM)), CAUSE)["status"] == "not_applicable"
