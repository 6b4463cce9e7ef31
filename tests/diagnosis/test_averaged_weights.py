"""Weights exchanged after training."""

from __future__ import annotations

from typing import Any

from tb_bnlens.history import Event
from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.limits import BELOW, swapped_and_replayed
from tests.diagnosis.runs import CALM, causes, finding, level, measured, rows, run, summary, with_last_probe

CAUSE = "averaged-weights"
EXCHANGE = {"inference": 9.0, "recalibrated": 8.5, "recalibrated_long": 8.5}

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, lambda: with_last_probe(run(CALM), **EXCHANGE))


def test_a_last_probe_that_stands_out() -> None:
    history = with_last_probe(run(CALM), **EXCHANGE)
    assert causes(history) == {CAUSE: "error"}
    assert "recalibrate" in finding(history, CAUSE)["fix"]


def test_an_announced_exchange() -> None:
    history = run(CALM, events=(Event(600, "averaged", "use_ema"),))
    assert CAUSE in causes(with_last_probe(history, **EXCHANGE, recalibrated_now=1.0))


def test_the_statistics_of_the_weights_have_to_do_better() -> None:
    assert CAUSE not in causes(with_last_probe(run(CALM), **EXCHANGE, recalibrated_now=8.5))


def test_an_ordinary_end_passes() -> None:
    assert finding(level(), CAUSE)["status"] == "pass"
    assert finding(run(CALM, probe=False), CAUSE)["status"] == "not_evaluated"


def test_statistics_that_came_with_the_weights() -> None:
    """Replays average what was there before, so they do not tell drift."""
    replaced = Event(600, "replaced", "weights and the moving statistics were replaced", (0,), (4.0,))
    passes: dict[str, Any] = {"batch": 1.0, "recalibrated": 1.0, "inference": 9.0, "replay_0.5": 1.0}
    history = measured(run(CALM, events=(replaced,)), **passes)
    assert causes(history) == {CAUSE: "error"}
    assert "weights and the moving statistics were replaced" in summary(history, CAUSE)


def test_longer_averages_that_only_take_noise_away_are_no_sign_of_averaged_weights() -> None:
    assert CAUSE in causes(swapped_and_replayed(BELOW))
    # At such a momentum the statistics are those of a few batches.
    assert CAUSE not in causes(rows(swapped_and_replayed(BELOW), momentum=0.5))
