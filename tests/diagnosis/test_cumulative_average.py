"""PyTorch layers without a momentum: every batch since the start counts as much as the newest."""

from __future__ import annotations

from tb_bnlens.history import History
from tests.diagnosis.checks import silence_of
from tests.diagnosis.runs import CALM, causes, finding, of_torch, run
from tests.simulation import SimLayer

CAUSE = "cumulative-average"
KIND = "BatchNorm2d (cumulative)"


def lagging() -> History:
    """A plain mean of n batches moves as an average of momentum 1 - 1/n does at its end."""
    return of_torch(run(SimLayer(momentum=0.998, drift=0.005)), kind=KIND)


test_silenced = silence_of(CAUSE, lagging)


def test_old_batches_are_named_and_no_momentum() -> None:
    found = causes(lagging())
    assert found.keys() == {CAUSE}
    assert "momentum=None" in finding(lagging(), CAUSE)["summary"]
    for other in ("momentum-too-high", "warming-up", "drift"):
        assert finding(lagging(), other)["status"] != "fail", other


def test_the_same_statistics_with_a_momentum_have_another_cause() -> None:
    with_momentum = of_torch(run(SimLayer(momentum=0.998, drift=0.005)))
    assert finding(with_momentum, CAUSE)["status"] == "not_applicable"
    assert causes(with_momentum)


def test_a_mean_of_alike_batches_passes() -> None:
    assert finding(of_torch(run(CALM), kind=KIND), CAUSE)["status"] == "pass"
