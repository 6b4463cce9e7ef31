"""Every other rule on simulated runs that have its fault, and its silence where the fault is absent or harmless."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tb_bnlens.history import Event, History
from tb_bnlens.metadata import LAYER_INDEX, LOSS_INDEX
from tb_bnlens.report import run_report
from tests.simulation import Sim, SimLayer, band_locator, pose_network, simulate

LAYERS = ("a", "b", "c")


def run(layer: SimLayer, **kwargs: Any) -> History:
    """Three such layers, 600 steps."""
    specs = [replace(copy.copy(layer), name=name) for name in LAYERS]
    return simulate(Sim(specs, **{"steps": 600, "planned": 600, "start_loss": 3.0, **kwargs}))


def finding(history: History, rule: str) -> dict[str, Any]:
    return next(f for f in run_report(history)["findings"] if f["rule"] == rule)


def causes(history: History) -> dict[str, str]:
    """Failures that count, with their severity."""
    report = run_report(history)
    assert not [f for f in report["findings"] if f["status"] == "error"], report["findings"]
    return {
        f["rule"]: f["severity"]
        for f in report["findings"]
        if f["status"] == "fail" and not f["explained_by"] and not f["silenced"]
    }


# --- drift ---------------------------------------------------------------------------------------------


def test_drift_is_told_from_a_start_that_lingers() -> None:
    history = pose_network()
    assert causes(history) == {"drift": "error"}
    found = finding(history, "drift")
    assert found["steps_to_converge"] == "never"
    assert found["fix"].startswith("model.optimizer.learning_rate = ")
    assert "never converge" in found["summary"]


def test_the_rate_and_the_permanent_lag_are_right() -> None:
    layer = run_report(pose_network(drift=0.02))["layers"][0]
    assert layer["drift"] == pytest.approx(0.02, rel=0.1)
    assert layer["permanent_lag"] == pytest.approx(0.02 * 99, rel=0.1)


def test_little_drift_raises_nothing() -> None:
    assert causes(pose_network(drift=2e-4)) == {}


def test_drift_without_a_gap_is_a_note() -> None:
    assert causes(pose_network(gain=0.0)) == {"drift": "info"}


# --- constant statistics -------------------------------------------------------------------------------

OFF = SimLayer(state="frozen", true_mean=1.5, true_variance=3.0)
FIT = SimLayer(state="frozen", start=(0.3, 0.5), channels=1)


def test_frozen_on_other_data_harmful() -> None:
    assert causes(run(OFF)) == {"frozen-mismatch": "error"}


def test_frozen_on_other_data_harmless() -> None:
    assert causes(run(OFF, gain=0.0)) == {"frozen-mismatch": "info"}


def test_frozen_on_the_same_data_raises_nothing() -> None:
    assert causes(run(FIT)) == {}


def test_frozen_layers_are_not_blamed_for_those_that_lag() -> None:
    frozen = [replace(FIT, name=f"frozen_{i}") for i in range(3)]
    lagging = [SimLayer(f"new_{i}", momentum=0.999, true_variance=0.05) for i in range(3)]
    history = simulate(Sim(frozen + lagging, steps=300, planned=300))
    assert causes(history) == {"momentum-too-high": "error"}


def test_lagging_layers_are_not_blamed_for_frozen_ones() -> None:
    frozen = [replace(OFF, name=f"frozen_{i}") for i in range(3)]
    history = simulate(Sim([*frozen, SimLayer("head", momentum=0.9)], steps=300, planned=300))
    assert causes(history) == {"frozen-mismatch": "error"}


def test_called_in_inference_mode() -> None:
    layer = replace(OFF, state="inference_mode")
    assert causes(run(layer)) == {"inference-mode-layer": "error"}
    assert causes(run(layer, gain=0.0)) == {"inference-mode-layer": "info"}
    assert causes(run(replace(FIT, state="inference_mode"))) == {}


def test_unfrozen_yet_in_inference_mode() -> None:
    events = (Event(100, "unfreeze", "trainable set to True", (0, 1, 2)), Event(100, "recompile", "compiled"))
    history = run(replace(FIT, state="inference_mode"), events=events)
    assert causes(history) == {"inference-mode-layer": "info"}
    assert "unfrozen at step 100" in finding(history, "inference-mode-layer")["summary"]


@pytest.mark.parametrize(("momentum", "fix"), [(1.0, "set_momentum(model, 0.99)"), (0.99, "training=True")])
def test_never_updated(momentum: float, fix: str) -> None:
    history = run(SimLayer(state="never_updated", momentum=momentum, true_variance=0.05))
    assert causes(history) == {"never-updated": "error"}
    assert fix in finding(history, "never-updated")["fix"]


# --- batches -------------------------------------------------------------------------------------------


def test_batch_noise() -> None:
    history = run(SimLayer(samples=4), noise_penalty=2.0)
    assert causes(history) == {"batch-noise": "error"}


def test_a_tiny_batch_in_a_network_that_works() -> None:
    assert causes(run(SimLayer(samples=4), gain=0.3)) == {}


def test_a_gap_that_noise_cannot_explain_is_not_called_noise() -> None:
    assert causes(run(SimLayer(samples=1e5), noise_penalty=2.0)) == {"train-inference-gap": "error"}


def test_batches_that_take_turns() -> None:
    history = run(SimLayer(samples=32, between=1.0), gain=2.0)
    assert causes(history) == {"unlike-batches": "error"}


def test_batches_that_are_sorted() -> None:
    history = run(SimLayer(samples=32, between=1.0, block=60), gain=2.0)
    assert "unlike-batches" in causes(history)
    assert "drift" not in causes(history)


def test_unlike_batches_without_a_gap_are_a_note() -> None:
    assert causes(run(SimLayer(samples=32, between=1.0), gain=0.0)) == {"unlike-batches": "info"}


def test_shared_layer_of_two_domains() -> None:
    history = run(SimLayer(), noise_penalty=2.0, overrides={"call_alternation": 1.5})
    assert causes(history) == {"alternating-domains": "error"}
    assert causes(run(SimLayer(), overrides={"call_alternation": 0.3})) == {}


# --- momentum ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("momentum", "advice"), [(0.1, "0.9"), (0.01, "0.99"), (0.0, "")])
def test_a_momentum_that_jumps(momentum: float, advice: str) -> None:
    history = run(SimLayer(momentum=momentum, samples=8), gain=10.0)
    assert causes(history).keys() == {"momentum-too-low"}
    assert causes(history)["momentum-too-low"] in ("warning", "error")
    assert f"set_momentum(model, {advice}" in finding(history, "momentum-too-low")["fix"]


def test_a_low_momentum_that_does_no_harm_is_a_note() -> None:
    assert causes(run(SimLayer(momentum=0.1, samples=1e5))) == {"momentum-too-low": "info"}


def test_momentum_set_after_the_trace() -> None:
    history = run(SimLayer(momentum=0.9, graph_momentum=0.999, true_variance=0.05))
    assert causes(history) == {"set-after-trace": "error"}
    assert finding(history, "momentum-too-high")["explained_by"] == "set-after-trace"
    assert causes(run(SimLayer(momentum=0.9, graph_momentum=0.9))) == {}


def test_trainable_set_after_the_trace() -> None:
    events = (Event(100, "unfreeze", "trainable set to True", (0, 1, 2)),)
    assert "set-after-trace" in causes(run(replace(FIT, state="inference_mode"), events=events))


# --- around BatchNorm ----------------------------------------------------------------------------------


def test_dropout_is_not_batchnorm() -> None:
    history = run(SimLayer(momentum=0.9), dropout=0.6)
    assert causes(history) == {"dropout-gap": "info"}
    assert causes(run(SimLayer(momentum=0.9), dropout=0.05)) == {}


def test_before_and_after_the_update() -> None:
    history = run(SimLayer(momentum=0.9), update_effect=3.0, loss_overrides={"fit_loss": 1.0})
    assert causes(history) == {"before-after-update": "info"}
    assert "Mostly it is the update itself" in finding(history, "before-after-update")["summary"]
    # In a run that still learns the epoch's mean is above the loss now; that is no news.
    assert causes(run(SimLayer(momentum=0.9), loss_overrides={"fit_loss": 4.0})) == {}


def test_overfitting_is_not_a_lag() -> None:
    assert causes(run(SimLayer(momentum=0.9), validation=(5.0, 5.0))) == {"overfitting": "info"}
    assert causes(run(SimLayer(momentum=0.9), validation=(1.1, 1.1))) == {}


def test_validation_data_with_other_statistics() -> None:
    assert causes(run(SimLayer(momentum=0.9), validation=(1.2, 5.0))) == {"validation-shift": "error"}


def test_collapsed_channels_are_a_note() -> None:
    assert causes(run(SimLayer(momentum=0.9, collapsed=4), gain=0.0)) == {"collapsed-channels": "info"}


def test_replicas_that_differ() -> None:
    history = run(SimLayer(momentum=0.9), noise_penalty=2.0, overrides={"replica_spread": 1.2})
    history = replace(history, manifest=replace(history.manifest, replicas=2))
    assert causes(history).keys() == {"replica-spread"}
    calm = run(SimLayer(momentum=0.9), overrides={"replica_spread": 0.02})
    assert causes(replace(calm, manifest=replace(calm.manifest, replicas=2))) == {}


def with_last_probe(history: History, **losses: float) -> History:
    for name, value in losses.items():
        history.losses[-1, 0, LOSS_INDEX[name]] = value
    return history


def test_averaged_weights() -> None:
    history = with_last_probe(run(SimLayer(momentum=0.9)), inference=9.0, recalibrated=8.5, recalibrated_long=8.5)
    assert causes(history) == {"averaged-weights": "error"}


def test_short_last_batch() -> None:
    layer = SimLayer(momentum=0.7)
    calm = run(layer, overrides={"epoch_end_distance": 1.4, "since_mean": 0.1})
    assert causes(calm) == {"short-last-batch": "info"}
    moved = with_last_probe(run(layer, overrides={"epoch_end_distance": 1.4, "since_mean": 0.1}), inference=3.0)
    assert causes(moved) == {"short-last-batch": "error"}
    slow = run(replace(layer, momentum=0.99), overrides={"epoch_end_distance": 1.4, "since_mean": 0.1})
    assert causes(slow) == {}


# --- silence -------------------------------------------------------------------------------------------


def test_silenced_for_all_its_layers() -> None:
    report = run_report(band_locator(ignore={"momentum-too-high": ("block_*",)}))
    found = next(f for f in report["findings"] if f["rule"] == "momentum-too-high")
    assert (found["status"], found["silenced"], report["severity"]) == ("fail", True, "none")


def test_silenced_for_some() -> None:
    report = run_report(band_locator(ignore={"momentum-too-high": ("block_0_*",)}))
    found = next(f for f in report["findings"] if f["rule"] == "momentum-too-high")
    assert not found["silenced"]
    assert len(found["layers"]) == 9
    assert "silenced" in found["summary"]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("momentum", [0.9, 0.97, 0.99])
@pytest.mark.parametrize("samples", [8, 64, 4096])
def test_converged_runs_raise_nothing(momentum: float, samples: float, seed: int) -> None:
    history = run(SimLayer(momentum=momentum, samples=samples, true_variance=0.8), seed=seed, gain=0.5, steps=900)
    assert causes(history) == {}


@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_has_just_begun_raises_no_alarm(seed: int) -> None:
    for steps in (1, 2, 5, 20):
        history = run(SimLayer(momentum=0.99), seed=seed, steps=steps, planned=5000)
        assert set(causes(history).values()) <= {"info"}, (steps, causes(history))


def test_empty_records() -> None:
    history = run(SimLayer(), steps=3)
    none = replace(
        history,
        steps=history.steps[:0],
        wall_times=history.wall_times[:0],
        layers=history.layers[:0],
        loss_steps=history.loss_steps[:0],
        loss_wall_times=history.loss_wall_times[:0],
        losses=history.losses[:0],
    )
    assert causes(none) == {}
    no_layers = replace(none, manifest=replace(none.manifest, layers=()), layers=np.empty((0, 0, 52), np.float32))
    assert causes(no_layers) == {}
    nothing_known = replace(
        history, layers=np.full_like(history.layers, np.nan), losses=np.full_like(history.losses, np.nan)
    )
    assert causes(nothing_known) == {}
    assert LAYER_INDEX["state"] == 0
