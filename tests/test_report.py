"""The report: its shape on the wire, its text, a comparison, its speed."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tb_bnlens.history import Event, History, Layer, Manifest
from tb_bnlens.metadata import LAYER_INDEX, LAYER_ROWS, LOSS_INDEX, LOSS_ROWS, PROBES
from tb_bnlens.report import build_report, run_report, schema
from tb_bnlens.report.compare import compare
from tb_bnlens.report.summary import summarize
from tb_bnlens.report.text import render, render_comparison
from tb_bnlens.rules.diagnose import RULES, diagnose
from tb_bnlens.rules.rule import Finding, Meta, Severity, Status
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


def test_every_field_of_the_schema_is_there() -> None:
    run = run_report(band_locator(layers=3))
    assert run.keys() == schema.Overview.__required_keys__
    assert run["losses"].keys() >= schema.Losses.__required_keys__
    assert run["layers"][0].keys() == schema.LayerReport.__required_keys__
    for finding in run["findings"]:
        assert finding.keys() == schema.Finding.__required_keys__
        for evidence in finding["evidence"].values():
            assert evidence.keys() == schema.Evidence.__required_keys__
    assert summarize(run).keys() == schema.RunSummary.__required_keys__


def test_the_summary_names_the_cause_that_counts() -> None:
    broken = summarize(run_report(band_locator(layers=3)))
    assert (broken["severity"], broken["cause"], broken["silenced"]) == ("error", "Momentum too high for this run", 0)
    assert broken["momentum"] == [0.999, 0.999] and broken["ended"] is None
    ignore = {rule.META.id: ("*",) for rule in RULES}
    quiet = summarize(run_report(band_locator(layers=3, ignore=ignore)))
    assert (quiet["severity"], quiet["cause"]) == ("none", None) and quiet["silenced"] > 0


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


def large_history(records: int = 2000, layers: int = 200) -> History:
    rng = np.random.default_rng(0)
    table = rng.random((records, layers, len(LAYER_ROWS)), np.float32)
    table[:, :, LAYER_INDEX["state"]] = 1
    table[:, :, LAYER_INDEX["updates"]] = np.arange(1, records + 1)[:, None]
    table[:, :, LAYER_INDEX["channels_nonfinite"]] = 0
    table[:-1, :, LAYER_INDEX["noise_mean"]] = np.nan
    losses = rng.random((400, len(PROBES), len(LOSS_ROWS)), np.float32) + 1
    losses[:, 0, LOSS_INDEX["inference"]] += 100
    steps = np.arange(1, records + 1)
    manifest = Manifest(tuple(Layer(i, f"bn_{i}", 64, 0.999, 1e-3) for i in range(layers)), planned_steps=records)
    return History("large", manifest, steps, steps.astype(float), table, steps[::5], steps[::5].astype(float), losses)


def test_a_large_run_is_reported_within_100_ms() -> None:
    history = large_history()
    run_report(history)
    taken = []
    for _ in range(5):
        began = time.process_time()
        run_report(history)
        taken.append(time.process_time() - began)
    assert min(taken) < 0.1, taken


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
