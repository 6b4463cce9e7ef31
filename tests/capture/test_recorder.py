"""Recorder in loops of the user's own."""

from __future__ import annotations

import copy
import json
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tb_bnlens
from tb_bnlens.frameworks.keras3.adapter import KerasModel
from tests.capture import models
from tests.capture.runs import assert_same, record, spying, state
from tests.capture.setups import BATCH, arrays
from tests.conftest import ROOT


def model(compiled: bool = False) -> Any:
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)
    inputs = keras.Input((models.FEATURES,))
    x = models.batch_norm("first")(inputs)
    x = keras.layers.Dropout(0.3)(keras.layers.Dense(5)(x))
    made = keras.Model(inputs, keras.layers.Dense(1)(models.batch_norm("second")(x)))
    made.compile(keras.optimizers.SGD(0.01), "mse" if compiled else None, jit_compile=False)
    made.optimizer.build(made.trainable_variables)
    return made


def squared(y: Any, y_pred: Any) -> Any:
    return tf.reduce_mean(tf.square(y - y_pred))


def eager_step(made: Any) -> Callable[[Any, Any], None]:
    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            loss = squared(y, made(x, training=True))
        weights = made.trainable_variables
        made.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

    return step


def compiled_step(made: Any) -> Callable[[Any, Any], None]:
    step: Callable[[Any, Any], None] = tf.function(eager_step(made))
    return step


def keras_step(made: Any) -> Callable[[Any, Any], None]:
    return lambda x, y: made.train_on_batch(x, y)


def batches(count: int = 10) -> list[tuple[Any, Any]]:
    x, y = arrays(BATCH * count)
    return [(x[i : i + BATCH], y[i : i + BATCH]) for i in range(0, len(x), BATCH)]


def recorder(made: Any, path: Path, **options: Any) -> Any:
    return tb_bnlens.Recorder(made, str(path / "run"), **{"overhead": math.inf, "on_error": "raise", **options})


@pytest.mark.parametrize("make_step", [eager_step, compiled_step, keras_step])
def test_loop(make_step: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loop(lens: Any = None) -> dict[str, Any]:
        made = model(compiled=make_step is keras_step)
        step = make_step(made)
        opened = lens(made) if lens else None
        for x, y in batches():
            step(x, y)
            if opened:
                opened.record(x, y)
        if opened:
            opened.close()
            last.append(float(squared(y, made(x))))
        return state(made)

    last: list[float] = []
    without = loop()
    loss = None if make_step is keras_step else squared
    with spying(monkeypatch) as seen:
        assert_same(without, loop(lambda made: recorder(made, tmp_path, loss=loss)))

    for window in seen.windows:
        x = np.concatenate([b[0] for b in batches()[window.first : window.last]])
        np.testing.assert_allclose(window.mean[: models.FEATURES], x.mean(0), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(window.variance[: models.FEATURES], x.var(0), rtol=1e-4)
    assert len(seen.windows) == 9, "the first call meets the model after its first step"
    read = record(tmp_path)
    assert read.last_step == 10 and not read.manifest.not_evaluated and not read.problems
    assert read.loss("inference")[-1] == pytest.approx(last[0], rel=1e-6)


def test_a_compiled_loop_of_many_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called after five steps at a time: the window is their exponentially weighted mean."""
    made = model()
    step = eager_step(made)
    xs, ys = (np.stack(part) for part in zip(*batches(20), strict=True))

    @tf.function
    def five(first: Any) -> None:
        for i in tf.range(first, first + 5):
            step(tf.gather(xs, i), tf.gather(ys, i))

    with spying(monkeypatch) as seen, recorder(made, tmp_path, loss=squared) as lens:
        for first in range(0, 20, 5):
            five(tf.constant(first))
            lens.record(xs[first + 4], ys[first + 4], step=first + 5)
    weights = 0.9 ** np.arange(4, -1, -1)
    assert [(w.first, w.last) for w in seen.windows] == [(5, 10), (10, 15), (15, 20)]
    for window in seen.windows:
        means = xs[window.first : window.last].mean(1)
        np.testing.assert_allclose(
            window.mean[: models.FEATURES], weights @ means / weights.sum(), rtol=1e-4, atol=1e-4
        )
    assert list(record(tmp_path).last("updates")) == [15, 15]


def test_not_inside_a_function(tmp_path: Path) -> None:
    made = model()
    lens = recorder(made, tmp_path)

    @tf.function
    def step(x: Any, y: Any) -> None:
        lens.record(x, y)

    with pytest.raises(RuntimeError, match=r"inside a tf\.function; call it after"):
        step(*map(tf.constant, batches()[0]))


def test_without_a_loss_the_statistics_are_recorded(tmp_path: Path) -> None:
    made = model()
    step = eager_step(made)
    with recorder(made, tmp_path) as lens:
        for x, y in batches():
            step(x, y)
            lens.record(x, y)
    read = record(tmp_path)
    assert "no loss" in read.manifest.not_evaluated["losses"]
    assert np.all(np.isnan(read.loss("inference"))) and np.all(np.isfinite(read.last("distance_rms")))


def new_statistics(made: Any) -> None:
    """As ``load_weights`` does that leaves out what is not trainable."""
    made.get_layer("first").beta.assign(range(models.FEATURES))
    made.get_layer("second").beta.assign([2.0] * 5)  # a constant, as an initializer would make it


def told_as_new(directory: Path) -> list[tuple[int, tuple[int, ...]]]:
    return [(e.step, e.layers) for e in record(directory).manifest.events if e.kind == "new_statistics"]


def test_trained_layers_with_new_statistics_are_noted(tmp_path: Path) -> None:
    made = model()
    new_statistics(made)
    step = eager_step(made)
    with recorder(made, tmp_path / "loop") as lens:
        for x, y in batches():
            step(x, y)
            lens.record(x, y)
    assert told_as_new(tmp_path / "loop") == [(1, (0,))]

    class Load(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_begin(self, logs: Any = None) -> None:
            new_statistics(self.model)

    for name, load in (("fit", [Load()]), ("again", [])):
        made = model()
        made.compile("sgd", "mse")
        x, y = batches()[0]
        for _ in range(2):  # the second fit continues the record of the first
            made.fit(
                x, y, verbose=0, callbacks=[tb_bnlens.BNLens(str(tmp_path / name / "run"), on_error="raise"), *load]
            )
            load = []
        assert told_as_new(tmp_path / name) == ([(0, (0,))] if name == "fit" else [])


def test_a_model_built_by_its_first_step(tmp_path: Path) -> None:
    made = models.Subclassed()
    with recorder(made, tmp_path, loss=squared) as lens:
        for x, y in batches():
            made(x, training=True)
            lens.record(x, y)
    read = record(tmp_path)
    assert len(read.manifest.layers) == 2 and read.last_step == 10


def test_a_model_that_is_marked_as_built_before_its_layers_are() -> None:
    """``build(shape)`` of a subclass without a ``build`` of its own does that, and the record had no layers."""
    made = models.Subclassed()
    made.built = True
    assert not KerasModel(made).is_built(after_a_step=False)
    made(arrays(8)[0])
    assert KerasModel(made).is_built(after_a_step=False)


def test_an_evaluation_in_training_mode_after_the_last_step(tmp_path: Path) -> None:
    """A loop has no hook before the next step, but what is closed is compared with the last look."""
    made = model(compiled=True)
    with recorder(made, tmp_path) as lens:
        for x, y in batches():
            made.train_on_batch(x, y)
            lens.record(x, y)
        made(5.0 + 0.0 * arrays(8)[0], training=True)
    (event,) = [event for event in record(tmp_path).manifest.events if event.kind == "outside"]
    assert (event.step, event.layers) == (10, (0, 1))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda lens: pickle.loads(pickle.dumps(lens))])
def test_copies_record_nothing(copied: Any, tmp_path: Path) -> None:
    made = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
    with tb_bnlens.Recorder(made, str(tmp_path), verbose=0, on_error="raise") as lens:
        lens.record(np.zeros((4, 2)))
        with copied(lens) as other:
            assert other is not lens and isinstance(other, tb_bnlens.Recorder)
            other.record(np.zeros((4, 2)))
            assert other.step == 0 and other.directory is None and other.planned_steps is None


def test_arguments() -> None:
    for options, sentence in (
        ({"overhead": 0}, "overhead is 0"),
        ({"tolerance": 2}, "tolerance is 2"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            tb_bnlens.Recorder(keras.Sequential(), "logs", **options)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=sentence):
            tb_bnlens.BNLens("logs", **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a keras"):
        tb_bnlens.Recorder("model", "logs")


def test_two_replicas(tmp_path: Path) -> None:
    """MirroredStrategy on two virtual devices, which have to be made before TensorFlow starts."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.capture.mirrored", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["different"] == {key: [] for key in ("fit", "fit on probe data", "loop", "loop on parts")}

    read = record(tmp_path / "fit")
    assert read.manifest.replicas == 2 and not read.problems
    assert "distribution strategy (MirroredStrategy" in read.manifest.not_evaluated["losses"]
    in_parts = record(tmp_path / "loop on parts").manifest.not_evaluated["losses"]
    assert "MirroredStrategy" in in_parts and "probe_data" in in_parts
    assert np.all(read.last("replica_spread") > 0) and np.all(np.isfinite(read.last("distance_rms")))
    calls = [layer.calls for layer in read.manifest.layers]
    assert calls == [1, 2] and read.last("updates").tolist() == [8, 16], "no pass is traced: the graph tells"
    # The first replica's batches are the first half of every global one.
    np.testing.assert_allclose(read.last("batch_mean_rms")[0], result["batch_mean_rms"], rtol=0.05)

    probed = record(tmp_path / "fit on probe data")
    assert not probed.manifest.not_evaluated and np.all(np.isfinite(probed.loss("inference")))
