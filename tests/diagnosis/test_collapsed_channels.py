"""Channels of next to no variance."""

from __future__ import annotations

from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, causes, finding, run, summary
from tests.simulation import SimLayer

CAUSE = "collapsed-channels"

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, lambda: run(SimLayer(momentum=0.9, collapsed=4), gain=0.0))


def test_they_are_a_note() -> None:
    history = run(SimLayer(momentum=0.9, collapsed=4), gain=0.0)
    assert causes(history) == {CAUSE: "info"}
    assert summary(history, CAUSE).startswith("12 of 48 channels in 3 layers are nearly constant")


def test_channels_that_vary_pass() -> None:
    assert finding(run(CALM), CAUSE)["status"] == "pass"
