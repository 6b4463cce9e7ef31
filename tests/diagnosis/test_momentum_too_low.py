"""A momentum so low that the moving statistics are little more than the last batch."""

from __future__ import annotations

from typing import Any

import pytest

from tb_bnlens.report import run_report
from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import causes, finding, measured, run, summary
from tests.simulation import SimLayer

CAUSE = "momentum-too-low"

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, lambda: run(SimLayer(momentum=0.1, samples=8), gain=10.0))


@pytest.mark.parametrize(("momentum", "advice"), [(0.1, "0.9"), (0.01, "0.99"), (0.0, "")])
def test_a_momentum_that_jumps(momentum: float, advice: str) -> None:
    history = run(SimLayer(momentum=momentum, samples=8), gain=10.0)
    found = causes(history)
    assert found.keys() == {CAUSE}
    assert found[CAUSE] in ("warning", "error")
    assert f"set_momentum(model, {advice}" in finding(history, CAUSE)["fix"]
    assert ("PyTorch" in summary(history, CAUSE)) is (momentum > 0)


def test_without_harm_it_is_a_note() -> None:
    assert causes(run(SimLayer(momentum=0.1, samples=1e5))) == {CAUSE: "info"}


def test_a_momentum_that_averages_passes() -> None:
    assert finding(run(SimLayer(momentum=0.9)), CAUSE)["status"] == "pass"


def test_what_a_higher_momentum_takes_away_at_the_end_is_its_share() -> None:
    """The probes jump by less, and the gap at the end is no symptom without a cause."""
    history = run(SimLayer(momentum=0.1, samples=8), gain=1.0)
    passes: dict[str, Any] = {"batch": 1.0, "recalibrated": 1.0, "inference": 4.0, "replay_0.9": 1.1}
    history = measured(history, **passes)
    assert causes(history) == {CAUSE: "error"}
    assert finding(history, CAUSE)["share"] > 0.9
    assert "Replayed with momentum 0.9, inference loss would be 1.1 in place of 4." in summary(history, CAUSE)


def test_a_memory_that_holds_the_start_is_no_longer_average() -> None:
    """Of 300 updates, 0.999 keeps 74% of the start, which may happen to serve."""
    layer = SimLayer(momentum=0.9, samples=2)
    passes: dict[str, Any] = {"batch": 1.0, "inference": 9.0, "recalibrated": 9.0, "replay_0.999": 2.5}
    history = run(layer, gain=10.0, steps=300, planned=300)
    assert CAUSE not in causes(measured(history, layers={"noise_mean": [0.9]}, **passes))
    history = run(layer, gain=10.0, steps=3000, planned=3000)
    assert causes(measured(history, layers={"noise_mean": [0.9]}, **passes))[CAUSE] == "error"


def test_noise_that_no_memory_averages_is_a_cause_of_its_own() -> None:
    """Batches of two rows: an average of more of them gives back some of the gap, and no statistics the rest."""
    layer = SimLayer(momentum=0.99, samples=2)
    passes: dict[str, Any] = {"batch": 1.0, "inference": 9.0, "recalibrated": 7.0, "replay_0.997": 5.0}
    scattering = {"noise_mean": [0.9]}
    trained = run(layer, gain=10.0, steps=1200, planned=1200)
    history = measured(trained, layers=scattering, **passes)
    assert causes(history) == {CAUSE: "error", "batch-noise": "error"}
    assert "averages over some 100 batches, too few" in summary(history, CAUSE)
    history = measured(trained, layers=scattering, **{**passes, "replay_0.997": 1.2})
    assert causes(history) == {CAUSE: "error"}


def test_many_batches_tell_where_no_replay_does() -> None:
    """Small batches make batch statistics bad as well, so the gap is small; inference could be far better."""
    passes: dict[str, Any] = {"batch": 0.74, "inference": 1.06, "recalibrated": 0.39, "replay_0.999": 0.5}
    history = measured(run(SimLayer(momentum=0.1, samples=8), gain=0.1, steps=300, planned=300), **passes)
    found, report = finding(history, CAUSE), run_report(history)
    assert causes(history) == {CAUSE: "warning"}
    assert "Recalibrated, inference loss would be 0.39 instead of 1.06" in found["summary"]
    assert "recalibrate" in found["rescue"] and found["rescue_loss"] == 0.39
    assert report["headline"].endswith("recalibrated it would be 0.39.")
    assert (
        report["losses"]["rival"] == "the loss with recalibrated statistics" and (report["losses"]["harm"] or 0.0) > 0.5
    )
    near = measured(run(SimLayer(momentum=0.1, samples=8), gain=0.1), **{**passes, "inference": 0.4})
    assert finding(near, CAUSE)["rescue"] == ""
