"""What each layer does, whatever its flags say, and what changes during the run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.history import History
from tb_bnlens.metadata import STATES
from tb_bnlens.reader import open_logdir, read_channels
from tests.capture import models
from tests.capture.runs import fit, lens, record, spying
from tests.capture.setups import Setup, arrays, in_policy
from tests.capture.test_fits import AtStep


@functools.cache
def recorded(build: Callable[[], Any], directory: Path) -> tuple[Any, History]:
    """A model that was trained with the lens, and the record. Nothing changes them."""
    return fit(Setup("", build), lens(directory / build.__name__)), record(directory / build.__name__)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the records of ``recorded`` lie."""
    return tmp_path_factory.mktemp("recorded")


def states(read: History) -> dict[str, str]:
    return {
        layer.name: STATES[int(state)] for layer, state in zip(read.manifest.layers, read.last("state"), strict=True)
    }


def momentum_one() -> Any:
    model = models.functional()
    model.get_layer("a").momentum = 1.0
    return model


@pytest.mark.parametrize(
    ("model", "first"),
    [
        (models.functional, "updating"),
        (models.frozen, "frozen"),
        (models.InferenceInside, "inference_mode"),
        (momentum_one, "never_updated"),
    ],
)
def test_state(model: Any, first: str, directory: Path) -> None:
    _, read = recorded(model, directory)
    assert states(read) == {"a": first, "b": "updating"}
    updates = dict(zip(["a", "b"], read.last("updates"), strict=True))
    # A model that its first step builds is met after that step.
    steps = 7 if model is models.InferenceInside else 8
    assert updates == {"a": steps if first == "updating" else 0, "b": steps}
    moved = dict(zip(["a", "b"], read.last("start_distance"), strict=True))
    assert (moved["a"] == 0.0) == (first != "updating") and moved["b"] > 0


def test_a_call_without_training(tmp_path: Path) -> None:
    """A train_step that forgets ``training=True``: nothing is ever updated, and it says so."""

    class Forgets(keras.Model):  # type: ignore[misc]
        def train_step(self, data: Any) -> Any:
            x, y = data
            loss = self.compute_loss(x, y, self(x, training=False))
            self.optimizer.iterations.assign_add(1)
            return {"loss": loss}

    fit(Setup("", lambda: models.own(Forgets)), lens(tmp_path))
    read = record(tmp_path)
    assert states(read) == {"a": "never_updated", "b": "never_updated"}
    assert any("its own train_step" in note for note in read.manifest.notes)


def test_batch_statistics_of_a_frozen_layer_come_from_the_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def model() -> Any:
        inputs = keras.Input((models.FEATURES,))
        norm = models.batch_norm("first", trainable=False)
        return keras.Model(inputs, keras.layers.Dense(1)(norm(inputs)))

    with spying(monkeypatch) as seen:
        fit(Setup("", model), lens(tmp_path))
    batches = np.stack([x.numpy() for x, *_ in seen.batches])
    channels = read_channels(open_logdir(tmp_path), "", "run", 0)
    assert np.all(channels.row("moving_mean") == 0)
    newest = batches[-8:].mean((0, 1))
    np.testing.assert_allclose(channels.row("batch_mean")[-1], newest, atol=0.5)
    # Probed batches fade with a memory of eight: a mean of the eight newest, or weights near it.
    lowest, highest = batches.mean(1).min(0), batches.mean(1).max(0)
    assert np.all((lowest <= channels.row("batch_mean")[-1]) & (channels.row("batch_mean")[-1] <= highest))
    assert read_pool(tmp_path) > 0


def read_pool(tmp_path: Path) -> float:
    return float(record(tmp_path).last("pool_updates")[0])


def test_momentum_set_after_the_step_was_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph keeps the old one: that is estimated, and windows are recovered with it."""
    setup = Setup("", models.sequential)
    model = fit(setup)
    before = {name: np.asarray(model.get_layer(name).moving_mean).copy() for name in "ab"}
    model.get_layer("a").momentum = 0.5
    with spying(monkeypatch) as seen:
        fit(setup, lens(tmp_path), model=model)
    read = record(tmp_path)
    np.testing.assert_allclose(read.last("momentum"), [0.5, 0.9], rtol=1e-6)
    np.testing.assert_allclose(read.last("momentum_effective"), [0.9, 0.9], atol=2e-3)
    assert before is not None
    # Taken at 0.5 a window's mean would be five times nearer to the moving mean than the batch's.
    x = np.concatenate([batch[0].numpy() for batch in seen.batches[-4:]])
    expected = (x @ np.asarray(model.layers[0].kernel) + np.asarray(model.layers[0].bias)).mean(0)
    late = np.mean([w.mean[:5] for w in seen.windows if w.first >= 12], axis=0)
    sd = np.sqrt(np.mean([w.variance[:5] for w in seen.windows if w.first >= 12], axis=0))
    assert np.all(np.abs(late - expected) < 0.3 * sd)


def events(read: History) -> list[tuple[int, str, tuple[int, ...]]]:
    return [(e.step, e.kind, e.layers) for e in read.manifest.events]


def test_changes_in_mid_run_are_events(tmp_path: Path) -> None:
    def unfreeze(model: Any) -> None:
        model.get_layer("a").trainable = True
        model.get_layer("b").momentum = 0.8
        model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
        model.make_train_function()

    fit(Setup("", models.frozen), lens(tmp_path), AtStep(3, unfreeze))
    read = record(tmp_path)
    kinds = {(kind, layers) for _, kind, layers in events(read)}
    assert {("unfreeze", (0,)), ("momentum", (1,)), ("recompile", ())} <= kinds
    assert states(read) == {"a": "updating", "b": "updating"}
    index = list(read.steps).index(3)
    assert STATES[int(read.row("state")[index - 1, 0])] == "frozen"
    assert [layer.trainable for layer in read.manifest.layers] == [True, True]
    assert read.manifest.layers[1].momentum == 0.8


def test_shared_and_nested_layers_have_names_calls_and_an_order(directory: Path) -> None:
    _, read = recorded(models.shared, directory)
    assert {layer.name: (layer.calls, layer.order) for layer in read.manifest.layers} == {
        "shared": (2, 0),
        "once": (1, 1),
    }
    alternation = dict(zip(("shared", "once"), read.last("call_alternation"), strict=True))
    assert alternation["shared"] > 0.5 and np.isnan(alternation["once"])

    names = [layer.name for layer in recorded(models.nested, directory)[1].manifest.layers]
    assert len(set(names)) == 3 and "part/bn" in names and "inner/part/bn" in names


def test_access_reaches_the_layer(directory: Path) -> None:
    for build in (models.nested, models.Subclassed, models.shared, models.sequential):
        model, read = recorded(build, directory)
        for layer in read.manifest.layers:
            reached = eval(layer.access, {"model": model})
            assert isinstance(reached, keras.layers.BatchNormalization) and reached.name == layer.name.split("/")[-1]
    assert arrays(1)[0].shape == (1, models.FEATURES)


@pytest.mark.parametrize("model", [models.shared, models.nested, models.sequential, models.Subclassed])
def test_calls_where_no_pass_can_be_traced(
    model: Any, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph of a functional model counts them as the probe would; of a ``call`` one is taken, with a note."""
    _, traced = recorded(model, directory)

    def refuse(_: Any) -> None:
        raise NotEvaluated("not this one")

    monkeypatch.setattr("tb_bnlens.frameworks.keras_tensorflow.common.refuse_traced_calls", refuse)
    fit(Setup("", model), lens(tmp_path))
    read = record(tmp_path)
    assert not len(read.loss_steps) and "not this one" in read.manifest.not_evaluated["losses"]
    np.testing.assert_array_equal(read.last("updates"), traced.last("updates"))
    granted = [note for note in read.manifest.notes if "taken to be called once" in note]
    assert bool(granted) == (model is models.Subclassed)


def test_statistics_in_half_precision_are_not_recovered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot of three digits would give windows that are off by tens of percent: the probe is asked instead."""
    with spying(monkeypatch) as seen:
        fit(Setup("", lambda: in_policy("bfloat16", models.functional)), lens(tmp_path))
    assert not any(np.any(np.isfinite(window.mean)) for window in seen.windows)
    read = record(tmp_path)
    assert any("half precision" in note for note in read.manifest.notes)
    assert not any("cannot be counted" in note for note in read.manifest.notes)
    assert np.all(np.isfinite(read.last("distance_rms"))) and np.all(np.isfinite(read.loss("inference")))
