"""The last batch of each epoch is an outlier."""

from __future__ import annotations

from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, causes, finding, rows, run, with_last_probe
from tests.simulation import SimLayer

CAUSE = "short-last-batch"
SHORT = {"epoch_end_distance": 1.4, "since_mean": 0.1}

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, lambda: run(SimLayer(momentum=0.7), overrides=SHORT))


def test_by_the_loss_after_it() -> None:
    layer = SimLayer(momentum=0.7)
    assert causes(run(layer, overrides=SHORT)) == {CAUSE: "info"}
    assert causes(with_last_probe(run(layer, overrides=SHORT), inference=3.0)) == {CAUSE: "error"}


def test_arrays_have_a_fix_as_well() -> None:
    fix = finding(run(SimLayer(momentum=0.7), overrides=SHORT), CAUSE)["fix"]
    assert "model.fit(x[:rows], y[:rows], batch_size=32)" in fix and ".batch(32, drop_remainder=True)" in fix


def test_a_high_momentum_hardly_feels_it() -> None:
    assert causes(run(SimLayer(momentum=0.99), overrides=SHORT)) == {}
    assert finding(run(CALM), CAUSE)["status"] == "not_applicable"


def test_one_odd_last_batch_is_not_a_short_one() -> None:
    """Heavy tails make any batch odd now and then; what is short is short in each epoch."""
    history = run(SimLayer(momentum=0.7), overrides={**SHORT, "epoch_end_distance": 0.1})
    assert causes(history) == {}
    assert causes(rows(history, last_only=True, epoch_end_distance=1.4)) == {}
    assert causes(rows(history, epoch_end_distance=1.4)) == {CAUSE: "info"}
