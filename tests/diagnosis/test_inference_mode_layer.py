"""Trainable layers that are called in inference mode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tb_bnlens.history import Event
from tb_bnlens.metadata import LAYER_INDEX, LOSS_INDEX, State
from tb_bnlens.report import run_report
from tb_bnlens.report.text import render_run
from tests.diagnosis.checks import silence_of
from tests.diagnosis.runs import CALM, FROZEN_FIT, FROZEN_OFF, causes, finding, run, summary

CAUSE = "inference-mode-layer"
OFF, FIT = (replace(layer, state="inference_mode") for layer in (FROZEN_OFF, FROZEN_FIT))

test_silenced = silence_of(CAUSE, lambda: run(OFF))


def test_by_the_loss() -> None:
    assert causes(run(OFF)) == {CAUSE: "error"}
    assert causes(run(OFF, gain=0.0)) == {CAUSE: "info"}
    assert "fine if it is intended" in summary(run(OFF, gain=0.0), CAUSE)
    assert "cannot be judged from the losses, since training runs on them too" in summary(run(OFF, gain=0.0), CAUSE)
    assert causes(run(FIT)) == {}
    assert finding(run(CALM), CAUSE)["status"] == "not_applicable"


def test_since_the_last_update() -> None:
    """An evaluation during the run left the layers in eval mode."""
    history = run(OFF)
    assert finding(history, CAUSE)["first_step"] == history.steps[0]
    history.layers[:9, :, LAYER_INDEX["state"]] = State.UPDATING.position
    # A record is of what was done since the one before, so the last updates may be long over.
    history.layers[:, :, LAYER_INDEX["updates"]] = np.minimum(np.arange(len(history.steps)), 8)[:, None]
    assert finding(history, CAUSE)["first_step"] == history.steps[8]


def test_a_training_that_diverges_in_eval_mode() -> None:
    """In a loop, which has no loss of fit, the losses of the probes are not finite any more."""
    history = run(OFF, gain=0.0)
    history.layers[:, :, LAYER_INDEX["updates"]] = np.minimum(np.arange(len(history.steps)), 8)[:, None]
    history.losses[..., LOSS_INDEX["fit_loss"]] = np.nan
    assert causes(history) == {CAUSE: "info"}
    late = history.loss_steps > history.steps[8]
    kinds = [LOSS_INDEX[kind] for kind in ("training", "batch", "inference", "recalibrated")]
    history.losses[np.ix_(late, [0], kinds)] = np.nan
    assert causes(history) == {CAUSE: "warning"}
    assert "Training has diverged since then" in summary(history, CAUSE)
    assert finding(history, CAUSE)["evidence"]["part"]["limit"] is None, "the loss does not make the warning"
    assert "Training has diverged" in run_report(history)["headline"]
    assert finding(history, CAUSE)["share"] is None
    # It was not finite before the layers stood still.
    history.losses[np.ix_(history.loss_steps > history.steps[2], [0], kinds)] = np.nan
    assert causes(history) == {CAUSE: "info"}
    assert "since then" not in summary(history, CAUSE)


def test_unfrozen_yet_in_inference_mode() -> None:
    events = (Event(100, "unfreeze", "trainable set to True", (0, 1, 2)), Event(100, "recompile", "compiled"))
    history = run(FIT, events=events)
    assert causes(history) == {CAUSE: "info"}
    assert "unfrozen at step 100" in summary(history, CAUSE)


def test_the_parts_of_the_loss_name_constant_layers() -> None:
    """Neither dropout nor batch noise is behind what training and batch statistics differ by."""
    text = render_run(run_report(run(OFF)))
    assert "constant layers" in text and "batch noise" not in text
