"""Layers in training mode whose moving statistics never change."""

from __future__ import annotations

import pytest

from tests.diagnosis.checks import silence_of
from tests.diagnosis.runs import CALM, causes, finding, run
from tests.simulation import SimLayer

CAUSE = "never-updated"
STILL = SimLayer(state="never_updated", true_variance=0.05)

test_silenced = silence_of(CAUSE, lambda: run(STILL))


@pytest.mark.parametrize(("momentum", "fix"), [(1.0, "set_momentum(model, 0.99)"), (0.99, "training=True")])
def test_never_updated(momentum: float, fix: str) -> None:
    history = run(SimLayer(state="never_updated", momentum=momentum, true_variance=0.05))
    assert causes(history) == {CAUSE: "error"}
    assert fix in finding(history, CAUSE)["fix"]
    assert finding(history, CAUSE)["steps_to_converge"] == "never"


def test_without_harm_it_is_a_note() -> None:
    assert causes(run(STILL, gain=0.0)) == {CAUSE: "info"}
    assert "recalibrate" not in finding(run(STILL, gain=0.0), CAUSE)["fix"]


def test_new_statistics_are_not_advised_where_no_loss_tells_what_training_used() -> None:
    """A loop that never says training=True trains with the initial statistics, and new ones break what it learned."""
    found = finding(run(STILL, probe=False), CAUSE)
    assert found["severity"] == "warning" and "Then train again" in found["fix"]
    assert "recalibrate" not in found["fix"] + found["rescue"]
    assert "recalibrate" in finding(run(STILL), CAUSE)["fix"]


def test_updated_layers_pass() -> None:
    assert finding(run(CALM), CAUSE)["status"] == "pass"
