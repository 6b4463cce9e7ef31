"""The report: its shape on the wire, its text, a comparison."""

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tb_bnlens.compare import compare
from tb_bnlens.history import Event
from tb_bnlens.report import build_report, run_report
from tb_bnlens.rules.diagnose import RULES, diagnose
from tb_bnlens.rules.rule import Finding, Meta, Severity, Status
from tb_bnlens.text import render, render_comparison
from tests.simulation import Sim, SimLayer, band_locator, simulate

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "frontend/test/golden/overview.json"


def golden_runs() -> dict[str, Any]:
    """A run with the fault, the healthy one, one that warms up, and one full of odds and ends."""
    odd = Sim(
        [
            SimLayer("backbone/bn_1", state="frozen", true_mean=1.5),
            SimLayer("backbone/bn_2", poisoned_at=90),
            SimLayer("<b>head</b>/bn", momentum=0.1, collapsed=2),
        ],
        steps=120,
        planned=200,
        validation=(1.1, 3.0),
        dropout=0.4,
        probe_every=30,
        ignore={"collapsed-channels": ("*head*",)},
        events=(Event(0, "start", "recording begins"), Event(60, "freeze", "trainable set to False", (0,))),
    )
    return build_report(
        [
            band_locator(layers=6),
            band_locator(0.9, layers=6),
            band_locator(0.99, layers=3, steps=100, planned=6000),
            simulate(odd, "odd"),
            simulate(Sim([SimLayer("bn", momentum=0.999, true_variance=0.05)], steps=50, probe=False), "no losses"),
        ]
    )


def near(a: Any, b: Any, path: str = "") -> None:
    assert type(a) is type(b) or (isinstance(a, int | float) and isinstance(b, int | float)), path
    if isinstance(a, dict):
        assert list(a) == list(b), path
        for key in a:
            near(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            near(x, y, f"{path}[{i}]")
    elif isinstance(a, float):
        # Sums in another order differ in the last digits; what is read must not.
        assert math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-6), f"{path}: {a} != {b}"
    else:
        assert a == b, f"{path}: {a!r} != {b!r}"


def test_golden() -> None:
    report = json.loads(json.dumps(golden_runs(), allow_nan=False))
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(parents=True, exist_ok=True)
        GOLDEN.write_text(json.dumps(report, indent=1) + "\n")
    near(report, json.loads(GOLDEN.read_text()))


def interface(name: str) -> set[str]:
    """Field names of an interface of wire.ts that are not optional."""
    text = (ROOT / "frontend/src/wire.ts").read_text()
    body = re.search(rf"export interface {name} {{\n(.*?)\n}}", text, re.S)
    assert body, name
    return set(re.findall(r"^  (\w+):", body.group(1), re.M))


def test_every_field_of_the_wire_is_there() -> None:
    run = run_report(band_locator(layers=3))
    assert interface("Overview") <= run.keys()
    assert interface("Losses") <= run["losses"].keys()
    assert interface("LayerReport") <= run["layers"][0].keys()
    for finding in run["findings"]:
        assert interface("Finding") <= finding.keys()
        for evidence in finding["evidence"].values():
            assert interface("Evidence") == evidence.keys()


def test_every_rule_is_reported_once_and_failures_come_first() -> None:
    findings = run_report(band_locator(layers=3))["findings"]
    assert sorted(f["rule"] for f in findings) == sorted(rule.META.id for rule in RULES)
    failed = [f["status"] == "fail" for f in findings]
    assert failed == sorted(failed, reverse=True)


def test_text_says_what_to_do() -> None:
    text = render(build_report([band_locator(layers=6)]))
    for words in ("needs", "momentum 0.999", "tb_bnlens.set_momentum(model, 0.9)", "(replayed)", "recalibrated"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 120
    assert "healthy" in render(build_report([band_locator(0.9, layers=6)])).lower()


def test_text_of_nothing_says_what_to_do() -> None:
    assert "BNLens" in render({"runs": []})


def test_comparison() -> None:
    a, b = run_report(band_locator(layers=6)), run_report(band_locator(0.9, layers=6))
    difference = compare(a, b)
    assert difference["findings"]["gone"] == ["momentum-too-high"]
    assert difference["settings"]["momentum"] == [[0.999], [0.9]]
    assert len(difference["layers"]) == 6
    text = render_comparison(difference)
    assert "momentum: 0.999 -> 0.9" in text and "findings gone: momentum-too-high" in text
    assert compare(a, a)["layers"] == []


# --- the frame -----------------------------------------------------------------------------------------

GOOD = {"id": "a-rule", "title": "t", "failure_title": "f", "description": "d", "requires": ("losses",)}


@pytest.mark.parametrize(
    "bad", [{"id": "A rule"}, {"title": " "}, {"description": ""}, {"requires": ()}, {"requires": ("weather",)}]
)
def test_a_bad_meta_is_refused(bad: dict[str, Any]) -> None:
    Meta(**GOOD)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rule"):
        Meta(**{**GOOD, **bad})  # type: ignore[arg-type]


def test_a_failure_needs_a_severity() -> None:
    with pytest.raises(ValueError, match="severity"):
        Finding(Status.FAIL, "it is broken")


class Module:
    """Stands for a rule's module."""

    def __init__(self, meta: Meta, finding: Finding | Exception) -> None:
        self.META, self.finding = meta, finding
        self.seen: set[str] = set()

    def check(self, **artifacts: Any) -> Finding:
        self.seen = set(artifacts)
        if isinstance(self.finding, Exception):
            raise self.finding
        return self.finding


def fail(severity: Severity) -> Finding:
    return Finding(Status.FAIL, "broken", severity)


def test_a_rule_gets_what_it_declared_and_nothing_else() -> None:
    rule = Module(Meta(**{**GOOD, "requires": ("losses", "outlook")}), Finding(Status.PASS, "fine"))  # type: ignore[arg-type]
    diagnose(band_locator(layers=1, steps=20), [rule])  # type: ignore[list-item]
    assert rule.seen == {"losses", "outlook"}


def test_a_crash_is_one_rules_error() -> None:
    crashing = Module(Meta(**GOOD), ZeroDivisionError("by zero"))  # type: ignore[arg-type]
    fine = Module(Meta(**{**GOOD, "id": "other"}), Finding(Status.PASS, "fine"))  # type: ignore[arg-type]
    found = diagnose(band_locator(layers=1, steps=20), [crashing, fine])  # type: ignore[list-item]
    assert {d.meta.id: d.finding.status for d in found} == {"a-rule": Status.ERROR, "other": Status.PASS}
    assert "ZeroDivisionError" in next(d for d in found if d.meta.id == "a-rule").finding.summary


@pytest.mark.parametrize(
    ("cause", "symptom", "excuses", "explained"),
    [
        (Severity.ERROR, Severity.ERROR, False, True),
        (Severity.ERROR, Severity.WARNING, False, True),
        (Severity.INFO, Severity.ERROR, False, False),
        (Severity.INFO, Severity.ERROR, True, True),
    ],
)
def test_a_cause_explains_what_is_no_graver(cause: Severity, symptom: Severity, excuses: bool, explained: bool) -> None:
    a = Module(Meta(**{**GOOD, "explains": ("other",), "excuses": excuses}), fail(cause))  # type: ignore[arg-type]
    b = Module(Meta(**{**GOOD, "id": "other"}), fail(symptom))  # type: ignore[arg-type]
    found = {d.meta.id: d for d in diagnose(band_locator(layers=1, steps=20), [b, a])}  # type: ignore[list-item]
    assert (found["other"].explained_by == "a-rule") is explained
    assert found["other"].severity is (Severity.NONE if explained else symptom)


def test_rules_name_known_rules_and_tell_the_user_enough() -> None:
    ids = {rule.META.id for rule in RULES}
    assert len(ids) == len(RULES)
    for rule in RULES:
        assert set(rule.META.explains) <= ids - {rule.META.id}, rule.META.id
        assert (rule.__doc__ or "").strip() and (rule.check.__doc__ or "").strip()
