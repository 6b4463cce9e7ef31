"""Every finding is told in the words of the framework that wrote the record."""

from __future__ import annotations

import ast
import re
from dataclasses import replace

import pytest

from tb_bnlens.history import History
from tb_bnlens.metadata import FLAX, KERAS, KERAS_2, TORCH
from tb_bnlens.report import run_report
from tests.diagnosis.limits import above_each
from tests.diagnosis.runs import causes, finding, of_torch, run
from tests.simulation import SimLayer

OF_KERAS = re.compile(
    r"keras\.|\btf\.|tensorflow|training=(True|False)|model\.compile|trainable|\bfit\(|evaluate\("
    r"|[Mm]oving (stat|mean|var)"
)
OF_TORCH = re.compile(r"\btorch|running (statistic|mean|var)|requires_grad|state_dict|DataLoader|\.eval\(\)")
NOT_OF_FLAX = re.compile(rf"{OF_KERAS.pattern}|\btorch|requires_grad|state_dict|DataLoader")


@pytest.mark.parametrize(
    ("framework", "foreign"), [(TORCH, OF_KERAS), (KERAS, OF_TORCH), (FLAX, NOT_OF_FLAX)], ids=[TORCH, KERAS, FLAX]
)
def test_no_word_of_the_other_framework(framework: str, foreign: re.Pattern[str]) -> None:
    said = set()
    for history in above_each():
        if history.manifest.framework != framework:
            if framework != TORCH and history.manifest.framework != KERAS:
                continue
            history = of_torch(history) if framework == TORCH else of_flax(history)
        for found in run_report(history)["findings"]:
            evidence = [e["label"] for e in found["evidence"].values()]
            # The words of a cause that does not show name the other framework where they are about it.
            texts = [found["title"], found["summary"], found["next"], *evidence] if found["status"] == "fail" else []
            codes = [found["fix"], found["rescue"]]
            for code in codes:
                ast.parse(code)
            wrong = [text for text in (*texts, *codes) if foreign.search(text)]
            assert not wrong, (found["rule"], wrong)
            said.update(codes)
    assert len(said) > 20


def of_flax(history: History) -> History:
    return replace(history, manifest=replace(history.manifest, framework=FLAX))


def test_code_for_keras_2_imports_its_package() -> None:
    named = set()
    for history in above_each():
        if history.manifest.framework != KERAS:
            continue
        history = replace(history, manifest=replace(history.manifest, framework=KERAS_2))
        for found in run_report(history)["findings"]:
            for code in (found["fix"], found["rescue"]):
                ast.parse(code)
                named |= set(re.findall(r"\b\w*keras\b", code))
    assert named == {"tf_keras"}


def test_a_momentum_is_the_share_that_a_batch_replaces() -> None:
    history = of_torch(run(SimLayer(momentum=0.999, true_variance=0.05), gain=150.0))
    assert causes(history).keys() == {"momentum-too-high"}
    found = finding(history, "momentum-too-high")
    assert "Momentum 0.001 needs" in found["summary"]
    assert found["title"] == "Momentum too small for this run"
    assert "tb_bnlens.torch.set_momentum(model, 0." in found["fix"]
    assert found["evidence"]["momentum"]["value"] == "0.001"
    assert "running statistics" in run_report(history)["verdict"] or "initial statistics" in found["summary"]


@pytest.mark.parametrize("state", ["frozen", "inference_mode", "never_updated"])
def test_why_a_layer_never_converges_is_told_without_the_nouns_of_keras(state: str) -> None:
    report = run_report(of_torch(run(SimLayer(state=state, true_mean=1.5))))
    assert all(layer["steps_reason"].startswith("never: the statistics are constant") for layer in report["layers"])


def test_updates_are_those_of_the_record() -> None:
    """A loop shows its first step when it is made, so the record has one update less than the run."""
    assert " recorded updates in the median layer" in finding(run(SimLayer()), "never-updated")["summary"]
