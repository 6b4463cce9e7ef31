"""PyTorch layers whose weights are frozen and whose statistics move."""

from __future__ import annotations

from dataclasses import replace

from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import CALM, causes, finding, of_torch, rows, run

CAUSE = "frozen-weights-moving-statistics"

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, lambda: of_torch(run(CALM), trainable=False))


def test_moving_statistics_under_frozen_weights() -> None:
    history = of_torch(run(CALM), trainable=False)
    assert causes(history) == {CAUSE: "warning"}
    found = finding(history, CAUSE)
    assert "layer.eval()" in found["fix"]
    assert found["fix"].index("recalibrate(model, data") < found["fix"].index("layer.eval()")
    assert len(found["layers"]) == 3


def test_the_rescue_names_the_part_that_is_frozen() -> None:
    history = of_torch(run(CALM), trainable=False)
    named = [replace(layer, name=f"teacher.{layer.name}") for layer in history.manifest.layers]
    *inside, outside = named
    of_a_part = (*inside, replace(outside, name="student.bn", trainable=True))
    for layers, part in ((named, "model.teacher"), (of_a_part, "model.teacher"), (history.manifest.layers, "backbone")):
        changed = replace(history, manifest=replace(history.manifest, layers=tuple(layers)))
        assert f"{part}.load_state_dict" in finding(changed, CAUSE)["rescue"]


def test_statistics_that_stay_near_their_start_are_a_note() -> None:
    history = rows(of_torch(run(CALM), trainable=False), start_distance=0.01)
    assert causes(history) == {CAUSE: "info"}
    moved = finding(history, CAUSE)["evidence"]["moved"]
    assert moved["against"] == "warning from" and moved["value"] < moved["limit"]
    assert "recalibrate" not in finding(history, CAUSE)["fix"] and finding(history, CAUSE)["rescue"] == ""


def test_trained_weights_and_eval_mode_pass() -> None:
    assert finding(of_torch(run(CALM)), CAUSE)["status"] == "not_applicable"
    still = of_torch(run(replace(CALM, state="frozen", start=(0.3, 0.5), channels=1)), trainable=False)
    assert finding(still, CAUSE)["status"] == "pass"


def test_keras_freezes_both_together() -> None:
    keras = replace(run(CALM), manifest=of_torch(run(CALM), trainable=False).manifest)
    keras = replace(keras, manifest=replace(keras.manifest, framework="keras"))
    assert causes(keras).keys() == {"set-after-trace"}
