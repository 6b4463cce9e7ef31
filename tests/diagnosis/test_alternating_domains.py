"""One layer called several times a step on unlike data."""

from __future__ import annotations

from tb_bnlens.history import History
from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, causes, finding, measured, of_torch, run, summary
from tests.simulation import SimLayer

CAUSE = "alternating-domains"


test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, lambda: run(SimLayer(), overrides={"call_alternation": 1.5}, noise_penalty=2.0))


def test_a_layer_shared_by_two_domains() -> None:
    assert causes(run(SimLayer(), noise_penalty=2.0, overrides={"call_alternation": 1.5})) == {CAUSE: "error"}


def test_a_head_that_all_levels_share() -> None:
    history = of_torch(run(SimLayer(), noise_penalty=2.0, overrides={"call_alternation": 1.5}), calls=3)
    assert "called 3 times in each step" in summary(history, CAUSE)
    channels = history.manifest.layers[0].channels
    made = f"norms = torch.nn.ModuleList([torch.nn.BatchNorm2d({channels}) for _ in range(3)])"
    assert made in finding(history, CAUSE)["fix"]


def test_calls_that_nobody_has_counted_yet_are_no_pair() -> None:
    history = run(SimLayer(), noise_penalty=2.0, overrides={"call_alternation": 1.5})
    assert "are called more than once in each step" in summary(history, CAUSE)
    assert "see two kinds of data in each step" in summary(of_torch(history, calls=2), CAUSE)


def test_calls_on_parts_of_a_batch_differ_by_more_noise() -> None:
    """As in ghost batch normalization, where each call has a fourth of the rows."""
    history = run(SimLayer(), noise_penalty=2.0, overrides={"call_alternation": 1.1})
    assert CAUSE in causes(of_torch(history, calls=2))
    assert CAUSE not in causes(of_torch(history, calls=4))


def test_one_domain_raises_nothing() -> None:
    assert causes(run(SimLayer(), overrides={"call_alternation": 0.3})) == {}
    assert finding(run(CALM), CAUSE)["status"] == "not_applicable"


def near(averaged: float = 1.5, larger: float = 0.8, scatter: float = 0.01) -> History:
    """Calls that differ by less than batch noise may, in a network measured on many batches."""
    return measured(
        of_torch(run(SimLayer(), overrides={"call_alternation": 0.3}), calls=2),
        inference=1.7,
        batch=0.8,
        recombined=0.8,
        recalibrated=1.7,
        pooled=larger,
        calls_averaged=averaged,
        scatter=scatter,
        layers={"noise_mean": [0.3] * 3, "between_within": [0.5] * 3},
    )


def test_calls_that_differ_by_little_on_which_the_loss_depends() -> None:
    """As in a critic that sees real and generated rows apart."""
    assert causes(near()) == {CAUSE: "error"}
    assert finding(near(), CAUSE)["evidence"]["alternation"]["limit"] is None
    assert CAUSE not in causes(near(averaged=1.1))  # a third of the gap
    assert CAUSE not in causes(near(larger=1.5))  # larger batches lose as much, so it is the noise of a batch
    assert CAUSE not in causes(near(scatter=1.0))  # no more than chance
