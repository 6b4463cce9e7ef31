"""Channels of next to no variance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tb_bnlens.history import History
from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, causes, finding, measured, rows, run, summary
from tests.simulation import SimLayer

CAUSE = "collapsed-channels"

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, lambda: run(SimLayer(momentum=0.9, collapsed=4), gain=0.0))


def test_they_are_a_note() -> None:
    history = run(SimLayer(momentum=0.9, collapsed=4), gain=0.0)
    assert causes(history) == {CAUSE: "info"}
    assert summary(history, CAUSE).startswith("12 of 48 channels in 3 layers are nearly constant")


def test_batches_of_one_row_leave_a_channel_no_variance() -> None:
    """Not a momentum too low, though an average of more such batches happens to do better."""
    passes: dict[str, Any] = {
        "inference": 9.0,
        "batch": 1.4,
        "recalibrated": 30.0,
        "replay_0.997": 2.0,
        "mismatched": 1.4,
    }
    history = one_row(rows(run(SimLayer(momentum=0.9, samples=8)), channels_collapsed=16.0))
    history = measured(history, layers={"between_within": [np.nan]}, **passes)
    assert causes(history) == {CAUSE: "error"}
    assert "one value" in summary(history, CAUSE) and "larger" in finding(history, CAUSE)["fix"].lower()
    some = measured(one_row(run(SimLayer(momentum=0.9, collapsed=4), gain=0.0)), inference=1.4, batch=1.4)
    assert causes(some)[CAUSE] == "info", "channels that vary have more than one value"


def test_such_a_layer_behind_images_says_nothing_of_the_momentum() -> None:
    """The layers before it keep their variance. Its own moving statistics are those of single rows."""
    history = measured(one_row(run(SimLayer(momentum=0.5, samples=8))), inference=9.0, batch=1.4, recalibrated=2.0)
    assert "momentum-too-low" in causes(history)
    noise = np.array([0.01, 0.01, 0.5])
    rows(history, channels_collapsed=16.0 * np.array([0, 0, 1]), noise_mean=noise, noise_variance=noise)
    assert causes(history)[CAUSE] == "error" and "momentum-too-low" not in causes(history)


def one_row(history: History) -> History:
    return replace(history, manifest=replace(history.manifest, batch_size=1))


def test_channels_that_vary_pass() -> None:
    assert finding(run(CALM), CAUSE)["status"] == "pass"
