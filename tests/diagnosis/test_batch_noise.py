"""No fixed statistics serve the network."""

from __future__ import annotations

import numpy as np
import pytest

from tb_bnlens.analysis import advice, loss_gap
from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import behind, causes, finding, put, run
from tests.simulation import SimLayer

CAUSE = "batch-noise"

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, lambda: run(SimLayer(samples=4), noise_penalty=2.0))


def test_noise_that_costs() -> None:
    history = run(SimLayer(samples=4), noise_penalty=2.0)
    assert causes(history) == {CAUSE: "error"}
    assert "unbatch().batch(" in finding(history, CAUSE)["fix"]


def test_a_tiny_batch_in_a_network_that_works() -> None:
    assert causes(run(SimLayer(samples=4), gain=0.3)) == {}


def test_unlike_batches_are_another_cause() -> None:
    history = run(SimLayer(samples=32, between=1.0), gain=2.0)
    assert finding(history, CAUSE)["status"] == "another_cause"
    assert behind(history, CAUSE) == "unlike-batches"


def test_advised_batches_grow_with_the_harm_up_to_a_limit() -> None:
    most = advice.MOST_ENLARGED * loss_gap.WARNING_HARM
    assert advice.larger_batches(8, most) == advice.larger_batches(8, 100 * most) == 128
    assert advice.larger_batches(8, most / 2) == 64


def test_the_advised_learning_rate_is_lower_by_a_least_factor() -> None:
    cut = advice.LEAST_CUT
    assert advice.lower_learning_rate(0.03, 0.1, 0.1 * cut * 0.97) == pytest.approx(0.03 / cut)
    assert advice.lower_learning_rate(0.03, 0.1, 0.1 * cut * 1.03) == pytest.approx(0.03 / cut / 1.03)
    assert advice.lower_learning_rate(float("nan"), 0.1, 1.0) is advice.lower_learning_rate(0.1, 0.1, 0.0) is None


def test_statistics_of_past_weights_tell_no_noise_where_the_moving_ones_serve_better() -> None:
    """As at a probe in mid-training of a GAN: the best fixed statistics were not measured."""
    noisy = run(SimLayer(samples=4), noise_penalty=2.0)
    for kind, values in (("batch", 0.1), ("inference", 1.5), ("recalibrated", 1.4), ("recalibrated_now", np.nan)):
        put(noisy, kind, [values] * len(noisy.losses), first=0)
    assert CAUSE in causes(noisy)
    put(noisy, "recalibrated", [4.0] * len(noisy.losses), first=0)
    assert finding(noisy, CAUSE)["status"] == "not_evaluated"
