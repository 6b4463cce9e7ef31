"""One layer called several times a step on unlike data."""

from __future__ import annotations

from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, causes, finding, run
from tests.simulation import SimLayer

CAUSE = "alternating-domains"


test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, lambda: run(SimLayer(), overrides={"call_alternation": 1.5}, noise_penalty=2.0))


def test_a_layer_shared_by_two_domains() -> None:
    assert causes(run(SimLayer(), noise_penalty=2.0, overrides={"call_alternation": 1.5})) == {CAUSE: "error"}


def test_one_domain_raises_nothing() -> None:
    assert causes(run(SimLayer(), overrides={"call_alternation": 0.3})) == {}
    assert finding(run(CALM), CAUSE)["status"] == "not_applicable"
