"""A momentum or trainable flag that the traced step does not know of."""

from __future__ import annotations

from dataclasses import replace

from tb_bnlens.history import Event, History
from tb_bnlens.metadata import OWN_STEP
from tests.diagnosis.checks import limits_of, silence_of
from tests.diagnosis.runs import FROZEN_FIT, behind, causes, finding, run
from tests.simulation import SimLayer

CAUSE = "set-after-trace"
OTHER_MOMENTUM = SimLayer(momentum=0.9, graph_momentum=0.999, true_variance=0.05)
UNFREEZE = Event(100, "unfreeze", "trainable set to True", (0, 1, 2))

test_limits = limits_of(CAUSE)
test_silenced = silence_of(CAUSE, lambda: run(OTHER_MOMENTUM))


def test_momentum() -> None:
    history = run(OTHER_MOMENTUM)
    assert causes(history) == {CAUSE: "error"}
    assert behind(history, "momentum-too-high") == CAUSE
    assert "compile" in finding(history, CAUSE)["fix"]
    assert causes(run(SimLayer(momentum=0.9, graph_momentum=0.9))) == {}


def test_trainable() -> None:
    called = replace(FROZEN_FIT, state="inference_mode")
    assert CAUSE in causes(run(called, events=(UNFREEZE,)))
    assert CAUSE not in causes(run(called, events=(UNFREEZE, Event(100, "recompile", "compiled"))))


def test_layers_that_the_optimizer_was_not_built_for() -> None:
    """They were set to trainable between a fit that was not recorded and this one."""
    called, left_out = replace(FROZEN_FIT, state="never_updated"), Event(0, "left_out", "", (0, 1, 2))
    history = run(called, events=(Event(0, "start", "begins"), left_out))
    assert CAUSE in causes(history) and "weights are not trained" in finding(history, CAUSE)["summary"]
    assert behind(history, "never-updated") == CAUSE
    assert CAUSE not in causes(run(called, events=(left_out, Event(100, "recompile", "compiled"))))
    assert CAUSE not in causes(run(SimLayer(momentum=0.9), events=(left_out,))), "the statistics move"


def test_a_step_that_freezes_a_layer_itself() -> None:
    """A GAN freezes the discriminator in one half of each step and trains it in the other."""

    def frozen(*events: Event, notes: tuple[str, ...] = ()) -> History:
        history = run(SimLayer(momentum=0.9), events=(Event(0, "start", "begins"), *events))
        layers = tuple(replace(layer, trainable=False) for layer in history.manifest.layers)
        return replace(history, manifest=replace(history.manifest, layers=layers, notes=notes))

    later, first = Event(100, "freeze", "trainable set to False", (0, 1, 2)), Event(1, "freeze", "set", (0,))
    back = Event(100, "unfreeze", "trainable set to True", (0, 1, 2))
    for faulty in (frozen(), frozen(later), frozen(later, notes=(OWN_STEP,))):
        assert finding(faulty, CAUSE)["status"] == "fail"
    for healthy in (frozen(first, notes=(OWN_STEP,)), frozen(notes=(OWN_STEP,)), frozen(first, back, later)):
        assert finding(healthy, CAUSE)["status"] == "pass"


def test_a_step_that_calls_a_layer_more_often_than_the_model_does() -> None:
    history = run(SimLayer(momentum=0.9, graph_momentum=0.81))
    assert CAUSE not in causes(history)
    assert "as with several updates a step" in finding(history, CAUSE)["summary"]
    was_set = run(SimLayer(momentum=0.9, graph_momentum=0.81), events=(Event(100, "momentum", "set"),))
    assert CAUSE in causes(was_set)
