"""The table of causes and its one decision, whatever the causes are about."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tb_bnlens
from tb_bnlens.analysis import distance, forecast
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.cause import Cause, Yields, always, to
from tb_bnlens.diagnosis.causes import CAUSES
from tb_bnlens.diagnosis.decide import Decision, Status, decide
from tb_bnlens.diagnosis.diagnose import diagnose
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.diagnosis.words import WORDS
from tb_bnlens.diagnosis.words.words import Said, Words
from tb_bnlens.history import History
from tests.diagnosis.limits import ABOVE, BELOW, CASES
from tests.diagnosis.runs import CALM, causes, run
from tests.simulation import band_locator

FACTS = Facts(band_locator(layers=2, steps=20))


def cause(name: str, takes: Severity = Severity.ERROR, **parts: Any) -> Cause:
    """A cause that shows in the first of two layers and costs so much."""
    row: dict[str, Any] = {
        "applies": lambda f: True,
        "shows": lambda f: np.array([True, False]),
        "cost": lambda f, where: takes,
        **parts,
    }
    return Cause(name, **row)


def words(**parts: Any) -> Words:
    whole: dict[str, Any] = {
        "name": "a thing",
        "title": "All is well",
        "failure_title": "Something is wrong",
        "description": "It is examined.",
        "absent": "There is none.",
        "passed": lambda f, d: "The number is 3.",
        "failed": lambda f, d: Said("It is broken."),
        **parts,
    }
    return Words(**whole)


def decided(*rows: Cause) -> dict[str, Decision]:
    return decide(rows, FACTS)


# --- the decision --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "status", "severity"),
    [
        ({"applies": lambda f: False, "known": lambda f: False}, Status.NOT_APPLICABLE, Severity.NONE),
        ({"known": lambda f: False}, Status.NOT_EVALUATED, Severity.NONE),
        ({"shows": lambda f: np.array([False, False])}, Status.PASS, Severity.NONE),
        ({"cost": lambda f, w: Severity.INFO}, Status.PASS, Severity.NONE),
        ({"cost": lambda f, w: Severity.NONE, "note": always}, Status.FAIL, Severity.INFO),
        ({"cost": lambda f, w: Severity.INFO, "least": Severity.INFO}, Status.FAIL, Severity.INFO),
        ({"cost": lambda f, w: Severity.WARNING}, Status.FAIL, Severity.WARNING),
        ({"most": Severity.INFO}, Status.FAIL, Severity.INFO),
        ({"cost": lambda f, w: 1 / 0}, Status.ERROR, Severity.NONE),
    ],
)
def test_one_cause_on_its_own(parts: dict[str, Any], status: Status, severity: Severity) -> None:
    d = decided(cause("one", **parts))["one"]
    assert (d.status, d.severity) == (status, severity)


def test_a_crash_takes_nothing_else_down() -> None:
    found = decided(cause("one", shows=lambda f: 1 / 0), cause("two", yields=to("one")))
    assert (found["one"].status, found["two"].status) == (Status.ERROR, Status.FAIL)
    assert "ZeroDivisionError" in found["one"].problem


@pytest.mark.parametrize(
    ("further", "own", "yields"),
    [
        (Severity.ERROR, Severity.ERROR, True),
        (Severity.ERROR, Severity.WARNING, True),
        (Severity.WARNING, Severity.ERROR, False),
        (Severity.NONE, Severity.WARNING, False),
    ],
)
def test_a_cause_yields_to_one_that_takes_as_much(further: Severity, own: Severity, yields: bool) -> None:
    found = decided(cause("one", further), cause("two", own, yields=to("one")))
    assert found["two"].status is (Status.ANOTHER_CAUSE if yields else Status.FAIL)
    assert found["two"].to == ("one" if yields else None)
    assert found["two"].severity is (Severity.NONE if yields else own)
    assert found["two"].layers == (0,)


def test_what_a_cause_takes_is_not_capped_by_what_is_shown() -> None:
    found = decided(cause("one", Severity.ERROR, most=Severity.INFO), cause("two", yields=to("one")))
    assert (found["one"].severity, found["two"].to) == (Severity.INFO, "one")


def test_the_first_that_holds_is_named() -> None:
    found = decided(cause("one"), cause("two"), cause("three", yields=to("missing", "two", "one")))
    assert found["three"].to == "two"


def test_a_cause_that_yields_explains_nothing() -> None:
    found = decided(cause("one"), cause("two", yields=to("one")), cause("three", yields=to("two")))
    assert found["three"].status is Status.FAIL


def test_facts_name_the_cause_behind_whatever_it_costs_and_wherever_it_stands() -> None:
    holds: list[bool] = [True]
    behind = Yields("two", lambda f, where: holds[0])
    table = (cause("one", yields=(behind,)), cause("two", Severity.WARNING))
    assert decided(*table)["one"].to == "two"
    holds[0] = False
    assert decided(*table)["one"].status is Status.FAIL
    holds[0] = True
    assert decided(table[0], cause("two", Severity.NONE))["one"].status is Status.FAIL


def test_the_cause_at_the_end_of_a_chain_is_named() -> None:
    chain = cause("one", yields=(Yields("two", always),)), cause("two", yields=(Yields("three", always),))
    assert {name: d.to for name, d in decided(*chain, cause("three")).items()} == {
        "one": "three",
        "two": "three",
        "three": None,
    }


def test_severity_orders_the_natural_way() -> None:
    assert Severity.NONE < Severity.INFO < Severity.WARNING < Severity.ERROR
    assert [s.word for s in Severity] == ["none", "info", "warning", "error"]


# --- the words ----------------------------------------------------------------------------------------


def test_rivals_that_pass_are_ruled_out_in_their_own_words() -> None:
    table = (
        cause("one", rivals=("two", "three", "four", "missing")),
        cause("two", Severity.NONE),
        cause("three"),
        cause("four", known=lambda f: False),
    )
    said = {name: words(name=f"thing {name}") for name in ("one", "two", "three", "four")}
    found = {d.id: d for d in diagnose(FACTS, table, said)}
    assert found["one"].ruled_out == (("thing two", "The number is 3."),)
    assert found["two"].ruled_out == ()


def test_words_that_crash_do_not_undo_a_decision() -> None:
    (found,) = diagnose(FACTS, [cause("one")], {"one": words(failed=lambda f, d: 1 / 0)})
    assert (found.status, found.severity) == (Status.FAIL, Severity.ERROR)
    assert "ZeroDivisionError" in found.said.summary


@pytest.mark.parametrize("part", ["name", "title", "failure_title", "description", "absent"])
def test_empty_words_are_refused(part: str) -> None:
    with pytest.raises(ValueError, match=part):
        words(**{part: " "})


def test_an_id_that_is_no_id_is_refused() -> None:
    with pytest.raises(ValueError, match="hyphens"):
        cause("A cause")


def test_failures_come_first_and_silenced_ones_after_them() -> None:
    table = [cause("one", Severity.NONE), cause("two", Severity.WARNING), cause("three"), cause("four")]
    said = {row.id: words() for row in table}
    manifest = replace(FACTS.manifest, ignore={"three": ("*",)})
    found = diagnose(Facts(replace(FACTS.history, manifest=manifest)), table, said)
    assert [d.id for d in found] == ["four", "two", "three", "one"]
    assert [d.counts for d in found] == [True, True, False, False]


# --- the table itself ----------------------------------------------------------------------------------


def test_every_cause_has_words_and_a_test() -> None:
    ids = [row.id for row in CAUSES]
    assert len(set(ids)) == len(ids)
    assert set(ids) == WORDS.keys()
    tests = {path.stem for path in Path(__file__).parent.glob("test_*.py")}
    assert {f"test_{name.replace('-', '_')}" for name in ids} <= tests


def test_causes_yield_upwards_unless_the_facts_say_which_is_behind() -> None:
    ids = [row.id for row in CAUSES]
    for row in CAUSES:
        assert {y.to for y in row.yields} | set(row.rivals) <= set(ids) - {row.id}, row.id
        for further in row.yields:
            assert further.when or ids.index(further.to) < ids.index(row.id), (row.id, further.to)


def test_a_gap_yields_to_every_cause_above_it() -> None:
    ids = [row.id for row in CAUSES]
    gap = CAUSES[ids.index("train-inference-gap")]
    assert [y.to for y in gap.yields] == ids[: ids.index(gap.id)]


# --- records with little in them -----------------------------------------------------------------------


def empty(history: History) -> History:
    return replace(
        history,
        steps=history.steps[:0],
        wall_times=history.wall_times[:0],
        layers=history.layers[:0],
        loss_steps=history.loss_steps[:0],
        loss_wall_times=history.loss_wall_times[:0],
        losses=history.losses[:0],
    )


def without_layers(history: History) -> History:
    shape = (0, 0, history.layers.shape[2])
    manifest = replace(history.manifest, layers=())
    return replace(empty(history), manifest=manifest, layers=np.empty(shape, np.float32))


def unknown(history: History) -> History:
    return replace(history, layers=np.full_like(history.layers, np.nan), losses=np.full_like(history.losses, np.nan))


@pytest.mark.parametrize("little", [empty, without_layers, unknown])
def test_little_is_not_a_fault(little: Callable[[History], History]) -> None:
    assert causes(little(run(CALM, steps=3))) == {}


# --- limits --------------------------------------------------------------------------------------------


def test_the_forecast_leaves_noise_out_just_below_its_share() -> None:
    """An excess of rounding says that convergence is past; the pace before it says when."""
    share = forecast.NOISE_SHARE

    def updates(x: float) -> float:
        return forecast.updates_to_loss([0, 100, 1000], [5000.0, 50.0, x * share], 1.0)

    assert updates(ABOVE) == pytest.approx(100 + 900 * np.log(50) / np.log(50 / (ABOVE * share)), rel=1e-6)
    assert updates(BELOW) == pytest.approx(100 + 100 * np.log(50) / np.log(100), rel=1e-6)


def test_a_channel_is_live_just_above_its_share_of_epsilon() -> None:
    v = distance.LIVE_SHARE * 1e-3
    assert np.isnan(distance.convergence_error(0.0, BELOW * v, 0.0, 1.0, 1e-3))
    assert distance.convergence_error(0.0, ABOVE * v, 0.0, 1.0, 1e-3) > 1


ELSEWHERE = {"NOISE_SHARE", "LIVE_SHARE", "MOST_ENLARGED", "LEAST_CUT", "FALSE_ALARMS", "REGROUPINGS", "ORDERED"}
ELSEWHERE |= {"IN_NATS"}
ELSEWHERE |= {"MOST_CALLS", "POWER_ERROR", "UPDATED", "UNMET", "ROUNDING", "UNPLANNED_STEPS", "LEAST_UNDONE", "COMMON"}
"""Limits of formulas and sentences, with a test of their own: above, in test_batch_noise.py, test_set_after_trace.py,
test_unlike_batches.py, test_momentum_too_high.py, test_warming_up.py or tests/analysis/test_measured.py."""
ESTIMATES = "tb_bnlens.analysis.arrival"
"""Figures that an estimate of the steps is made of: tests/analysis/test_arrival.py and test_prediction.py."""
OF_NOISE = {"NOISE_SIGMAS", "VARIANCE_NOISE", "LOOK_BACK"}


def named_limits() -> set[tuple[str, str]]:
    """(module, name) of every number with a name in capitals in analysis/ and diagnosis/."""
    package = Path(tb_bnlens.__file__).parent
    found = set()
    for path in (p for part in ("analysis", "diagnosis") for p in (package / part).rglob("*.py")):
        module = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Constant):
                continue
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id.isupper() and isinstance(node.value.value, int | float):
                    found.add((module, target.id))
    return found


def test_every_named_limit_has_a_case() -> None:
    limits = named_limits()
    assert len(limits) > 35
    deciding = {(m, x) for m, x in limits if x not in ELSEWHERE and (m != ESTIMATES or x in OF_NOISE)}
    assert deciding == {(m.__name__, name) for m, name, _ in CASES}
