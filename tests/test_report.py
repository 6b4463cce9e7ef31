"""The report: its shape on the wire, its text, a comparison."""

import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.causes import CAUSES
from tb_bnlens.diagnosis.words.phrases import ON_NEW_BATCHES
from tb_bnlens.history import Event
from tb_bnlens.numbers import number
from tb_bnlens.report import build_report, markdown, notebook, run_report, schema
from tb_bnlens.report.compare import compare
from tb_bnlens.report.style import Style
from tb_bnlens.report.summary import summarize
from tb_bnlens.report.text import render, render_comparison
from tests.diagnosis.runs import FROZEN_OFF, level, measured, of_torch, run
from tests.simulation import Sim, SimLayer, band_locator, simulate

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "frontend/test/golden/overview.json"


def golden_runs() -> schema.Report:
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
    ignore = {cause.id: ("*",) for cause in CAUSES}
    quiet = summarize(run_report(band_locator(layers=3, ignore=ignore)))
    assert (quiet["severity"], quiet["cause"]) == ("none", None) and quiet["silenced"] > 0


def test_every_cause_is_reported_once_and_failures_come_first() -> None:
    findings = run_report(band_locator(layers=3))["findings"]
    assert sorted(f["rule"] for f in findings) == sorted(cause.id for cause in CAUSES)
    failed = [f["status"] == "fail" for f in findings]
    assert failed == sorted(failed, reverse=True)


def test_text_says_what_to_do() -> None:
    text = render(build_report([band_locator(layers=6)]))
    for words in ("needs", "Momentum 0.999", "tb_bnlens.set_momentum(model, 0.9)", "Replayed", "recalibrated"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 120
    assert "explained by momentum-too-high" in text
    assert "No BatchNorm problem found" in render(build_report([band_locator(0.9, layers=6)]))


def test_text_names_what_is_silenced() -> None:
    text = render(build_report([band_locator(layers=6, ignore={"momentum-too-high": ("*",)})]))
    assert "1 finding is silenced: Momentum too high for this run (error)." in " ".join(text.split())
    assert "silenced by ignore: Momentum too high for this run [momentum-too-high]" in text
    assert "problem found" not in text


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
    assert [x["name"] for x in difference["distances"]] == [x["name"] for x in _farthest_apart(a, b)]
    said = markdown.render_comparison(difference)
    assert "| momentum | 0.999 | 0.9 |" in said and "Findings gone: `momentum-too-high`." in said
    assert "| loss, inference |" in said and "whose distance differs most" in said


def _renamed(run: Any, *names: str) -> Any:
    return {**run, "layers": [{**layer, "name": name} for layer, name in zip(run["layers"], names, strict=True)]}


def test_layers_that_keras_numbers_differently_are_compared_in_order() -> None:
    run = run_report(band_locator(layers=3))
    a = _renamed(run, "stem", "batch_normalization", "batch_normalization_1")
    b = _renamed(run, "batch_normalization_1", "stem", "batch_normalization_2")
    difference = compare(a, b)
    assert difference["only"] == [[], []]
    names: Any = [x["names"] for x in difference["distances"]]
    assert set(map(tuple, names)) == {
        ("stem", "stem"),
        ("batch_normalization", "batch_normalization_1"),
        ("batch_normalization_1", "batch_normalization_2"),
    }
    assert "batch_normalization_1 -> batch_normalization_2: " in render_comparison(difference)
    assert "| batch\\_normalization\\_1 -\\> batch" in markdown.render_comparison(difference)
    named = compare(_renamed(run, "bn_1", "bn_2", "bn_3"), {**_renamed(run, "bn_2", "bn_3", "x")})
    assert named["only"] == [["bn_1"], ["x"]]  # names of a user count


def test_a_momentum_is_compared_in_the_convention_of_each_run() -> None:
    a, b = run_report(of_torch(band_locator(layers=2))), run_report(band_locator(0.9, layers=2))
    difference = compare(a, b)
    text, said = render_comparison(difference), markdown.render_comparison(difference)
    assert "momentum: 0.001 -> 0.9" in text and "| momentum | 0.001 | 0.9 |" in said
    assert "framework: torch -> keras" in text
    assert "momentum 0.001 -> 0.1, " in render_comparison(compare(a, run_report(of_torch(band_locator(0.9, layers=2)))))


def _farthest_apart(a: Any, b: Any) -> list[Any]:
    pairs = zip(a["layers"], b["layers"], strict=True)
    return [x for x, _ in sorted(pairs, key=lambda pair: -abs(pair[0]["distance"] - pair[1]["distance"]))]


def test_a_comparison_has_the_metrics_of_both_runs() -> None:
    a = run_report(band_locator(layers=3))
    b = {**a, "losses": {**a["losses"], "metrics": {"mae": {"batch": 0.5, "inference": 2.0}}}}
    difference = compare(a, b)
    assert difference["metrics"] == {"mae": {"batch": [None, 0.5], "inference": [None, 2.0]}}
    assert "mae, inference: ? -> 2" in render_comparison(difference)
    assert "| mae, inference | ? | 2 |" in markdown.render_comparison(difference)


def test_markdown_escapes_names_and_says_what_it_does_not_know() -> None:
    layers = [SimLayer("<b>x</b>|`y`@someone", momentum=0.999, true_variance=0.05)]
    said = markdown.render(build_report([simulate(Sim(layers, steps=50, probe=False), "a_b*c*")]))
    assert "\\<b\\>x\\</b\\>\\|\\`y\\`@<!-- -->someone" in said
    assert "a\\_b\\*c\\*" in said and "no end recorded" in said
    assert "| loss |" not in said


def test_without_losses_the_statistics_have_the_word() -> None:
    run = run_report(simulate(Sim([SimLayer("bn", momentum=0.999, true_variance=0.05)], steps=50, probe=False), "x"))
    assert "initial statistics" in run["headline"]
    assert "losses were not evaluated" in run["reasons"][-1] or "No loss is measured" in run["reasons"][-1]


def test_the_end_and_the_first_metric_are_in_the_summary() -> None:
    history = band_locator(layers=3)
    history = replace(history, manifest=replace(history.manifest, ended="interrupted", ended_step=123))
    run = run_report(history)
    assert (run["ended"], run["ended_step"], run["imported"]) == ("interrupted", 123, False)
    assert run["last_record"] == history.loss_wall_times[-1]
    run["losses"]["metrics"] = {"only": {"batch": 1.0}, "acc": {"batch": 0.9, "inference": 0.5}}
    row = summarize(run)
    assert (row["ended"], row["metric"]) == ("interrupted", {"name": "acc", "batch": 0.9, "inference": 0.5})


def test_recalibrated_is_one_number_in_every_form_of_the_report() -> None:
    """Probes of old records have it twice: with statistics of recent steps, and at the present weights."""
    run = run_report(band_locator(layers=3))
    both = {"recalibrated": 0.0638, "recalibrated_now": 0.0906}
    run["losses"] = cast(schema.Losses, {**run["losses"], **both})
    report = cast(schema.Overview, {"format": 1, "runs": [run]})
    forms = [render(report), markdown.render(report), notebook.as_html(run), render_comparison(compare(run, run))]
    assert all("0.0906" in form and "0.0638" not in form for form in forms)


def test_the_table_has_the_loss_that_inference_is_held_against() -> None:
    """Where the batches of training are known by heart, that is the loss on new ones."""
    passes: dict[str, Any] = {"inference": 0.5, "batch": 0.1, "recalibrated": 0.5, "recombined": 0.625}
    accuracy = {name: {"accuracy": 0.75} for name in ("inference", "batch")}
    history = measured(level(), layers={"between_within": [0.0] * 3}, metrics=accuracy, scatter=0.001, **passes)
    report = build_report([history])
    assert report["runs"][0]["losses"]["rival"] == ON_NEW_BATCHES
    wide, narrow = render(report), render(report, Style(width=60))
    assert re.search(r"batch +new batches +recalibrated", wide) and re.search(r"0\.1 +0\.625 +0\.5 +0\.5\n", wide)
    assert re.search(r"\n +new batches  0\.625\n", narrow), "no accuracy was measured there"


def test_frozen_layers_are_one_part() -> None:
    """With all layers frozen, training and inference are on the same statistics."""
    history = run(FROZEN_OFF)
    parts = next(line for line in render(build_report([history])).splitlines() if "parts:" in line)
    assert parts.count("frozen layers") == 1 and "training-only" not in parts
    dropout = next(
        line for line in render(build_report([run(FROZEN_OFF, dropout=0.6)])).splitlines() if "parts" in line
    )
    assert "training-only layers and frozen layers" in dropout


def test_without_layers_headline_and_table_have_the_same_losses() -> None:
    history = simulate(Sim([SimLayer("bn", momentum=0.9)], steps=60, planned=60, loss_noise=0.3))
    history = replace(history, manifest=replace(history.manifest, layers=()), layers=history.layers[:, :0])
    run = run_report(history)
    assert run["losses"]["inference"] != Facts(history).typical("inference")
    table = summarize(run)
    assert f"is {number(run['losses']['training'])} in training mode" in run["headline"]
    assert f"and {number(table['inference'])} at inference" in run["headline"]
