"""A momentum of Keras in a PyTorch model."""

from __future__ import annotations

import pytest

from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import causes, finding, of_torch, run
from tests.simulation import SimLayer

CAUSE = "mixed-conventions"

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, lambda: of_torch(run(SimLayer(momentum=0.1, samples=8), gain=10.0)))


@pytest.mark.parametrize(("kept", "said", "advice"), [(0.1, "0.9", "0.1"), (0.01, "0.99", "0.01")])
def test_a_share_that_is_replaced_and_meant_to_be_kept(kept: float, said: str, advice: str) -> None:
    history = of_torch(run(SimLayer(momentum=kept, samples=8), gain=10.0))
    found = causes(history)
    assert found.keys() == {CAUSE}
    assert found[CAUSE] in ("warning", "error")
    assert f"momentum {said}" in finding(history, CAUSE)["summary"]
    assert f"tb_bnlens.torch.set_momentum(model, {advice})" in finding(history, CAUSE)["fix"]


def test_without_harm_it_is_a_note() -> None:
    assert causes(of_torch(run(SimLayer(momentum=0.1, samples=1e5)))) == {CAUSE: "info"}


def test_a_momentum_that_averages_passes() -> None:
    assert finding(of_torch(run(SimLayer(momentum=0.9))), CAUSE)["status"] == "pass"


def test_each_batch_alone_is_no_mix_up() -> None:
    """1 - 1 is no momentum that anybody means."""
    assert causes(of_torch(run(SimLayer(momentum=0.0, samples=8), gain=10.0))).keys() == {"momentum-too-low"}
