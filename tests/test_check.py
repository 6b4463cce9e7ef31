"""``check``: the model in hand, without training."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tb_bnlens
from tb_bnlens.checking import result
from tb_bnlens.checking.data import spread_batches
from tb_bnlens.checking.measure import FIRST_LOOK, Checked, looks
from tb_bnlens.checking.result import Check
from tb_bnlens.checking.start import start_left
from tb_bnlens.cli import FOUND, OK, UNREADABLE, main
from tb_bnlens.diagnosis.causes import CAUSES
from tb_bnlens.frameworks.keras3.adapter import KerasModel
from tb_bnlens.frameworks.keras3.runner import KerasRunner
from tb_bnlens.frameworks.keras_tensorflow.backend import BACKEND
from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.segments import Segments
from tb_bnlens.reader import list_runs, open_logdir, read_run
from tb_bnlens.report import run_report
from tests.capture import truth
from tests.capture.runs import built

# Keras copies a variable when it saves a model.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE, FEATURES, CLASSES = 32, 8, 4
LAYERS = ("a", "b", "c")
FORM = BACKEND.batches


def measured(*arguments: Any) -> Checked:
    """The last look, which is at all of the batches."""
    *_, last = looks(*arguments)
    return last


def arrays(rows: int = 1600) -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    x = rng.normal(2.0, 1.5, (rows, FEATURES)).astype(np.float32)
    weights = rng.normal(size=(FEATURES, CLASSES))
    return x, np.argmax((x - 2.0) @ weights + rng.normal(size=(rows, CLASSES)), 1)


X, Y = arrays()


def network(momentum: float = 0.9, dropout: float = 0.0, units: int = 24) -> Any:
    keras.utils.set_random_seed(7)
    inputs = x = keras.Input((FEATURES,))
    for name in LAYERS:
        x = keras.layers.Dense(units)(x)
        if dropout:
            x = keras.layers.Dropout(dropout)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=momentum, name=name)(x))
    model = keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(x))
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def trained(epochs: int = 3, **options: Any) -> Any:
    model = built(network(**options), X[:2], Y[:2])
    model.fit(X, Y, batch_size=SIZE, epochs=epochs, verbose=0)
    return model


@pytest.fixture(scope="module")
def once() -> Any:
    """A healthy model. Tests that change it put it back."""
    return trained()


@pytest.fixture
def healthy(once: Any) -> Iterator[Any]:
    with truth.kept(once):
        yield once


@pytest.fixture(scope="module")
def slow() -> Any:
    """Momentum 0.999 for 150 steps: 86% of the initial statistics is left. Nothing changes it."""
    return trained(momentum=0.999)


@pytest.fixture(scope="module")
def found_slow(slow: Any) -> Check:
    """What a check of it finds."""
    return checked(slow)


def checked(model: Any, data: Any = (X, Y), **options: Any) -> Check:
    return tb_bnlens.check(model, data, **{"batches": 12, "quiet": True, **options})


def losses_of(found: Check, data: str = "") -> Any:
    losses: Any = found.report["losses"]
    return losses[data] if data else losses


def named(found: Check) -> dict[str, str]:
    return {finding["rule"]: finding["severity"] for finding in found.findings}


def statuses(found: Check) -> dict[str, str]:
    return {finding["rule"]: finding["status"] for finding in found.report["findings"]}


# --- what is found -------------------------------------------------------------------------------------


def test_a_healthy_model(healthy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = checked(healthy)
    assert capsys.readouterr().out == ""
    assert found.severity == "none" and not found.findings
    assert found.report["checked"] and found.report["last_step"] == 150
    losses = losses_of(found)
    assert losses["inference"] < 1.1 * losses["batch"] and losses["batches"] == 12
    assert losses["metrics"]["accuracy"]["inference"] > 0.7
    # What shows over time has not been examined, and is not called fine.
    for cause in ("set-after-trace", "drift", "averaged-weights", "momentum-too-low", "before-after-update"):
        assert statuses(found)[cause] == "not_evaluated", cause
    assert statuses(found)["short-last-batch"] == "not_applicable"
    said = {f["rule"]: f["summary"] for f in found.report["findings"]}
    assert "A check looks at one moment" in said["drift"]
    assert not any(f["status"] == "error" for f in found.report["findings"])


def test_fewer_batches_do_where_they_explain_all(healthy: Any, slow: Any) -> None:
    few, all_of_them = checked(healthy, batches=24), checked(healthy, batches=FIRST_LOOK)
    assert losses_of(few)["batches"] == FIRST_LOOK == losses_of(all_of_them)["batches"]
    assert few.severity == "none" and statuses(few) == statuses(all_of_them)
    # A measured rescue that leaves nothing of a sure error explains it.
    broken = checked(slow, batches=24)
    assert losses_of(broken)["batches"] == FIRST_LOOK and named(broken) == {"momentum-too-high": "error"}
    # What lies between is measured on all of them.
    for name in LAYERS:
        variance = healthy.get_layer(name).moving_variance
        variance.assign(3 * variance)
    assert losses_of(checked(healthy, batches=24))["batches"] == 24


def test_a_pass_is_made_once(slow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: Counter[tuple[int, str]] = Counter()
    inference = KerasRunner.inference

    def counted(self: Any, batch: Any, moving: Moments) -> Any:
        made[id(batch), moving.mean.tobytes().hex()] += 1
        return inference(self, batch, moving)

    monkeypatch.setattr(KerasRunner, "inference", counted)
    monkeypatch.setattr(result, "_suffices", lambda *_: False)
    checked(slow, batches=24)
    assert len(made) > 48 and set(made.values()) == {1}


def test_momentum_too_high(found_slow: Check) -> None:
    assert named(found_slow) == {"momentum-too-high": "error"}
    (finding,) = found_slow.findings
    assert finding["layers"] == list(LAYERS)
    assert finding["evidence"]["memory"]["value"] == pytest.approx(0.999**150, abs=0.03)
    assert "tb_bnlens.recalibrate" in finding["rescue"]
    promised = finding["rescue_loss"]
    assert promised is not None
    assert promised == pytest.approx(losses_of(found_slow)["recalibrated"], rel=1e-3)
    layer: Any = found_slow.report["layers"][0]
    assert layer["updates"] is None and layer["steps_to_converge"] > 1000


@pytest.mark.parametrize(("value", "states"), [(0.0, "updating"), (math.nan, "updating")])
def test_poison(healthy: Any, value: float, states: str) -> None:
    layer = healthy.get_layer("b")
    variance = np.asarray(layer.moving_variance).copy()
    variance[3] = value if math.isnan(value) else -1.0
    layer.moving_variance.assign(variance)
    found = checked(healthy)
    assert found.severity == "error" and list(named(found)) == ["non-finite-statistics"]
    (finding,) = found.findings
    assert finding["layers"] == ["b"] and finding["first_step"] is None and "since step" not in found.verdict
    assert [layer["state"] for layer in found.report["layers"]] == [states] * 3


@pytest.mark.parametrize("trainable", [True, False])
def test_statistics_that_were_never_loaded(healthy: Any, trainable: bool) -> None:
    truth.assign(healthy, {name: (np.zeros(24), np.ones(24)) for name in LAYERS})
    for layer in truth.norms(healthy):
        layer.trainable = trainable
    try:
        found = checked(healthy)
    finally:
        for layer in truth.norms(healthy):
            layer.trainable = True
    assert found.severity in ("error", "warning")
    assert next(iter(named(found))) == ("never-updated" if trainable else "frozen-mismatch")
    assert "Load the moving statistics" in found.findings[0]["fix"]
    if trainable:
        assert "a mean of 0 and a variance of 1" in found.verdict and "after 150 steps" not in found.verdict


def test_statistics_of_other_data(healthy: Any) -> None:
    """Nothing of the start is left in them, and one moment does not tell where they are from."""
    own = {
        x.name: (np.asarray(x.moving_mean) * 0.5 + 1, np.asarray(x.moving_variance) * 4) for x in truth.norms(healthy)
    }
    truth.assign(healthy, own)
    found = checked(healthy)
    assert named(found) == {"train-inference-gap": "error"}
    assert "A check does not tell which" in found.verdict and "No known cause" not in found.verdict
    assert losses_of(found)["recalibrated"] < 1.1 * losses_of(found)["batch"]
    assert "tb_bnlens.recalibrate" in found.findings[0]["rescue"]


def test_variance_shift() -> None:
    """Dropout before BatchNorm: the statistics are those of training, and inference has others."""
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(1024, 10)).astype(np.float32), rng.normal(size=(10, 6))
    y = np.maximum(x @ weights, 0).mean(1, keepdims=True).astype(np.float32)
    keras.utils.set_random_seed(3)
    inputs = h = keras.Input((10,))
    for _ in range(2):
        h = keras.layers.Dropout(0.5)(keras.layers.Dense(128, activation="relu")(h))
        h = keras.layers.BatchNormalization(momentum=0.9)(keras.layers.Dense(128)(h))
        h = keras.layers.ReLU()(h)
    model = keras.Model(inputs, keras.layers.Dense(1)(h))
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    built(model, x[:2], y[:2]).fit(x, y, batch_size=64, epochs=14, verbose=0)
    found = checked(model, (x, y), batch_size=64)
    assert "variance-shift" in named(found), found.verdict
    assert found.severity in ("warning", "error")


class Hard(keras.Model):  # type: ignore[misc]
    """BatchNorm in training mode whatever the model is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = keras.layers.Dense(16), keras.layers.BatchNormalization(name="a")
        self.out = keras.layers.Dense(CLASSES, activation="softmax")

    def call(self, x: Any, training: bool = False) -> Any:
        return self.out(keras.ops.relu(self.norm(self.inner(x), training=True)))


@pytest.fixture(scope="module")
def hard_wired() -> Any:
    """Nothing changes it."""
    model = Hard()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(X[:320], Y[:320], verbose=0)
    return model


def test_training_true_hard_wired(hard_wired: Any) -> None:
    evidence = measured(KerasModel(hard_wired), "hard", spread_batches(FORM, (X, Y), 4, SIZE)).history.evidence[-1]
    # Inference does not react to quite other statistics, and depends on the rows around.
    away = evidence.passes["perturbed"].losses
    assert np.array_equal(away, evidence.passes["inference"].losses[: len(away)])
    assert "one_at_a_time" in evidence.passes


@pytest.mark.skipif("ignores-statistics" not in {cause.id for cause in CAUSES}, reason="the cause is not in the table")
def test_training_true_hard_wired_is_named(hard_wired: Any) -> None:
    assert "ignores-statistics" in named(checked(hard_wired))


def test_without_a_loss_the_statistics_are_judged(slow: Any, found_slow: Check) -> None:
    bare = keras.Model(slow.inputs, slow.outputs)
    found = checked(bare)
    assert named(found) == {"momentum-too-high": "warning"}
    assert found.report["losses"]["inference"] is None and "compile it with one" in " ".join(str(found).split())
    # Nobody has counted the steps; the statistics tell of some 150.
    steps = int(found.verdict.split("as after ")[1].split(".")[0].replace(",", ""))
    assert 120 < steps < 190
    given = checked(bare, loss=keras.losses.sparse_categorical_crossentropy)
    assert losses_of(given)["inference"] == pytest.approx(losses_of(found_slow)["inference"], rel=1e-5)


def test_data_without_targets(slow: Any) -> None:
    found = checked(slow, X[:128])
    assert found.report["losses"]["inference"] is None
    assert "The batches have no targets, and the loss needs them: pass batches (x, y)" in " ".join(str(found).split())


def test_a_model_without_batchnorm() -> None:
    model = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES)])
    found = checked(model)
    assert found.severity == "none" and "no BatchNorm layers" in found.verdict


def test_a_pass_that_cannot_be_made_is_said() -> None:
    class Decorated(keras.layers.Layer):  # type: ignore[misc]
        @tf.function  # type: ignore[untyped-decorator]
        def call(self, x: Any) -> Any:
            return 2.0 * x

    inputs = keras.Input((FEATURES,))
    outputs = keras.layers.Dense(CLASSES)(keras.layers.BatchNormalization()(Decorated()(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    found = checked(model, (X, keras.utils.to_categorical(Y)))
    assert found.report["checked"] and "@tf.function" in str(found)
    assert statuses(found)["drift"] != "pass"


# --- the evidence --------------------------------------------------------------------------------------


def test_the_evidence_is_that_of_keras(slow: Any) -> None:
    batches = spread_batches(FORM, (X, Y), 6, SIZE)
    evidence = measured(KerasModel(slow), "slow", batches).history.evidence[-1]
    assert evidence.moment == "check" and evidence.batch_sizes.tolist() == [SIZE] * 6 and evidence.seconds > 0

    def losses(name: str) -> Any:
        return evidence.passes[name].losses

    each = range(len(batches))
    every = [truth.statistics(slow, x, LAYERS) for x, _ in batches]
    others = [truth.mean_of(every, [SIZE] * 6, i) for i in each]
    np.testing.assert_allclose(losses("inference"), [truth.loss(slow, b) for b in batches], rtol=1e-5)
    np.testing.assert_allclose(losses("batch"), [truth.loss_by_batch(slow, b, LAYERS) for b in batches], rtol=1e-5)
    put_right = [truth.loss_with(slow, batches[i], others[i]) for i in each]
    np.testing.assert_allclose(losses("recalibrated"), put_right, rtol=1e-5)
    assert evidence.groups["from_start"] == (0, 1, 2)
    np.testing.assert_allclose(losses("put_right:from_start"), put_right, rtol=1e-5)
    x, y = (np.concatenate([np.asarray(b[i]) for b in batches]) for i in (0, 1))
    right = float(np.mean(np.argmax(slow(x, training=False), 1) == y))
    assert evidence.passes["inference"].metrics["accuracy"] == pytest.approx(right)


def test_a_model_is_traced_once(healthy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, modes = KerasRunner._forward, []

    def traced(runner: KerasRunner, batch: Any, training: bool) -> Any:
        modes.append(training)
        return forward(runner, batch, training)

    monkeypatch.setattr(KerasRunner, "_forward", traced)
    # The last batch is smaller than the others, and the pooled ones are larger.
    found = measured(KerasModel(healthy), "run", spread_batches(FORM, (X[:200], Y[:200]), 12, SIZE))
    assert {"recalibrated", "recombined", "pooled"} <= set(found.history.evidence[0].passes)
    # Only BatchNorm tells the modes apart here. Inference may get a separate trace once it pays.
    assert modes in ([False], [False, False])


def test_a_model_that_has_to_know_the_size_of_its_batch() -> None:
    @keras.saving.register_keras_serializable()
    class Rows(keras.layers.Layer):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return keras.ops.reshape(inputs, (int(inputs.shape[0]), FEATURES))

    inputs = keras.Input(batch_shape=(SIZE, FEATURES))
    model = keras.Sequential([inputs, Rows(), keras.layers.BatchNormalization(momentum=0.5), keras.layers.Dense(1)])
    model.compile("sgd", "mean_squared_error")
    model.fit(X[:320], Y[:320], batch_size=SIZE, verbose=0)
    losses = losses_of(checked(model, (X[:320], Y[:320])))
    assert losses["batches"] == 10
    assert losses["inference"] == pytest.approx(model.evaluate(X[:320], Y[:320], batch_size=SIZE, verbose=0), rel=1e-4)


def test_validation_data(healthy: Any) -> None:
    found = checked(healthy, validation_data=(X[:256] + 3.0, Y[:256]))
    assert losses_of(found, "validation")["inference"] > 2 * losses_of(found)["inference"]


@pytest.mark.parametrize("left", [0.9, 0.5, 0.1])
def test_what_is_left_of_the_start(left: float) -> None:
    rng = np.random.default_rng(0)
    batch = Moments(rng.normal(1.0, 2.0, 64), rng.gamma(2.0, 2.0, 64))
    past = Moments(batch.mean + rng.normal(0, 0.02, 64), batch.variance * rng.normal(1, 0.02, 64))
    moving = Moments((1 - left) * past.mean, (1 - left) * past.variance + left)
    segments = Segments([48, 16])
    np.testing.assert_allclose(start_left(moving, batch, segments), left, atol=0.02)


def test_another_error_is_not_the_start() -> None:
    rng = np.random.default_rng(0)
    batch = Moments(rng.normal(1.0, 2.0, 64), rng.gamma(2.0, 2.0, 64))
    elsewhere = Moments(batch.mean + rng.normal(0, 1.0, 64), batch.variance * rng.gamma(2.0, 1.0, 64))
    assert np.isnan(start_left(elsewhere, batch, Segments([64]))).all()
    assert start_left(batch, batch, Segments([64])) == 0.0


# --- nothing changes -----------------------------------------------------------------------------------


def everything(model: Any) -> dict[str, Any]:
    """All that a model keeps, and the generators that training draws from."""
    generators = [s.state for layer in model._flatten_layers() for s in getattr(layer, "_seed_generators", [])]
    optimizer = model.optimizer.variables if getattr(model, "optimizer", None) is not None else []
    variables = [*model.variables, *optimizer, *model.metrics_variables, *generators]
    return {
        "values": [np.asarray(v).copy() for v in variables],
        "flags": [(layer.trainable, layer.built, "call" in vars(layer)) for layer in model._flatten_layers()],
        "parts": [id(getattr(model, name, None)) for name in ("optimizer", "_compile_loss", "_compile_metrics")],
        "attributes": sorted(vars(model)),
        "built": [getattr(getattr(model, name), "built", None) for name in ("_compile_loss", "_compile_metrics")],
        "python": random.getstate(),
        "numpy": [np.asarray(part).tolist() for part in np.random.get_state()],  # noqa: NPY002 users draw from it
    }


def assert_unchanged(before: dict[str, Any], after: dict[str, Any]) -> None:
    values = before.pop("values"), after.pop("values")
    assert len(values[0]) == len(values[1])
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*values, strict=True))
    assert before == after


@pytest.fixture(scope="module")
def dropping() -> Any:
    return trained(dropout=0.3, epochs=1)


@pytest.mark.parametrize("made", ["trained", "loaded", "fresh"])
def test_nothing_in_the_model_changes(made: str, dropping: Any, tmp_path: Path) -> None:
    model = network(dropout=0.3) if made == "fresh" else dropping
    if made == "loaded":
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
    before = everything(model)
    found = checked(model, log_dir=tmp_path / "logs")
    assert_unchanged(before, everything(model))
    assert found.report["losses"]["metrics"]["accuracy"]["batch"] is not None
    assert math.isfinite(model.evaluate(X, Y, verbose=0)[0])


def test_training_goes_on_as_without_a_check() -> None:
    def weights(check: bool) -> list[Any]:
        model = built(network(dropout=0.3), X[:2], Y[:2])
        model.fit(X[:320], Y[:320], batch_size=SIZE, verbose=0)
        if check:
            checked(model)
        model.fit(X[:320], Y[:320], batch_size=SIZE, verbose=0)
        return [np.asarray(v) for v in model.variables]

    assert all(np.array_equal(a, b) for a, b in zip(weights(False), weights(True), strict=True))


# --- data ----------------------------------------------------------------------------------------------


class Sequence(keras.utils.PyDataset):  # type: ignore[misc]
    def __init__(self, asked: list[int]) -> None:
        super().__init__()
        self.asked = asked

    def __len__(self) -> int:
        return len(X) // SIZE

    def __getitem__(self, index: int) -> Any:
        self.asked.append(index)
        return X[index * SIZE : (index + 1) * SIZE], Y[index * SIZE : (index + 1) * SIZE]


def dataset() -> Any:
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(SIZE)


def listed() -> list[Any]:
    return [(X[i : i + SIZE], Y[i : i + SIZE]) for i in range(0, len(X), SIZE)]


DATA: dict[str, Callable[[], Any]] = {
    "arrays": lambda: (X, Y),
    "dataset": dataset,
    "unknown length": lambda: dataset().filter(lambda x, y: True),
    "endless": lambda: dataset().repeat(),
    "list": listed,
    "generator": lambda: iter(listed()),
    "PyDataset": lambda: Sequence([]),
}


@pytest.mark.parametrize("kind", DATA)
def test_kinds_of_data(kind: str) -> None:
    batches = spread_batches(FORM, DATA[kind](), 8, SIZE)
    assert 4 < len(batches) <= 8
    for x, y in batches:
        assert x.shape == (SIZE, FEATURES) and y.shape == (SIZE,)


@pytest.mark.parametrize("kind", ["dataset", "PyDataset"])
def test_other_data_than_arrays(kind: str, healthy: Any) -> None:
    assert checked(healthy, DATA[kind](), batches=3).severity == "none"


def test_batches_are_spread_over_the_data() -> None:
    first = [
        int(np.flatnonzero((X == np.asarray(x)[0]).all(1))[0]) // SIZE for x, _ in spread_batches(FORM, dataset(), 5, 1)
    ]
    # No more than 40 of the 50 batches are read for 5.
    assert first == [0, 8, 16, 24, 32]
    asked: list[int] = []
    spread_batches(FORM, Sequence(asked), 5, 1)
    assert asked == [0, 10, 20, 30, 40]
    # Rows of sorted arrays are mixed, as fit shuffles them.
    order = np.argsort(Y)
    assert all(
        len(set(np.asarray(y).tolist())) == CLASSES for _, y in spread_batches(FORM, (X[order], Y[order]), 5, 64)
    )


def test_no_more_is_read_than_needed() -> None:
    read: list[int] = []

    def batches() -> Iterator[Any]:
        for i in range(10_000):
            read.append(i)
            yield X[:SIZE], Y[:SIZE]

    assert len(spread_batches(FORM, batches(), 8, SIZE)) == 8 and len(read) == 8
    read.clear()
    signature = (tf.TensorSpec((None, FEATURES), tf.float32), tf.TensorSpec((None,), tf.int64))
    spread_batches(FORM, tf.data.Dataset.from_generator(batches, output_signature=signature), 8, SIZE)
    assert len(read) <= 8 * 8 + 1


def test_data_that_is_none() -> None:
    with pytest.raises(TypeError, match=r"list of 2 arrays that are no batches of one kind.*as a tuple"):
        spread_batches(FORM, [np.zeros((8, 4)), np.zeros((8, 1))], 8, SIZE)
    with pytest.raises(TypeError, match="data is an int; pass"):
        spread_batches(FORM, 3, 8, SIZE)
    with pytest.raises(ValueError, match="holds no batch"):
        spread_batches(FORM, [], 8, SIZE)
    with pytest.raises(ValueError, match="different numbers of rows"):
        spread_batches(FORM, (X, Y[:5]), 8, SIZE)


def test_arguments(healthy: Any) -> None:
    with pytest.raises(ValueError, match=r"expected a keras\.Model"):
        tb_bnlens.check("model.keras", (X, Y))
    with pytest.raises(ValueError, match="not built"):
        tb_bnlens.check(Hard(), (X, Y))
    with pytest.raises(ValueError, match=r"^batches is 0; expected 1 or more$"):
        tb_bnlens.check(healthy, (X, Y), batches=0)
    with pytest.raises(ValueError, match="tolerance is 2"):
        tb_bnlens.check(healthy, (X, Y), tolerance=2)


def test_a_single_batch(slow: Any) -> None:
    found = checked(slow, (X[:SIZE], Y[:SIZE]))
    assert found.report["checked"] and "momentum-too-high" in named(found)


# --- what it gives -------------------------------------------------------------------------------------


def test_the_record_gives_the_same_report(slow: Any, tmp_path: Path) -> None:
    found = checked(slow, log_dir=tmp_path / "run")
    provider = open_logdir(tmp_path)
    (run,) = list_runs(provider)
    assert run.name == "run" and found.log_dir == str(tmp_path / "run")
    again = run_report(read_run(provider, "", run))
    assert again["notes"] == [] and again["verdict"] == found.verdict
    assert [f["rule"] for f in again["findings"]] == [f["rule"] for f in found.report["findings"]]
    assert again["losses"]["inference"] == pytest.approx(found.report["losses"]["inference"], rel=1e-5)
    # A record is never mixed with that of another model.
    second = checked(slow, log_dir=tmp_path / "run", batches=2)
    third = checked(slow, log_dir=tmp_path / "run", batches=2)
    assert [second.log_dir, third.log_dir] == [str(tmp_path / "run" / name) for name in ("check", "check-2")]
    assert {r.name for r in list_runs(open_logdir(tmp_path))} == {"run", "run/check", "run/check-2"}


def test_text_and_html(slow: Any, found_slow: Check, capsys: pytest.CaptureFixture[str]) -> None:
    tb_bnlens.check(slow, (X, Y), batches=4)
    printed = capsys.readouterr().out
    assert printed.startswith("X Inference loss is") and "tb_bnlens.recalibrate(model" in printed
    found = found_slow
    assert "Momentum too high for this run [momentum-too-high]" in str(found)
    assert found.verdict in repr(found)
    with pytest.raises(AttributeError):
        found.log_dir = "elsewhere"  # type: ignore[misc]
    html = found._repr_html_()
    assert len(html) < 10_000 and found.report["headline"] in html
    assert "<td" in html and "accuracy" in html and "background" not in html
    hostile = {**found.report, "headline": "<script>alert(1)</script>", "reasons": ["<img src=x>"]}
    shown = Check(hostile)._repr_html_()  # type: ignore[arg-type]
    assert "<script" not in shown and "<img" not in shown


# --- the command line ----------------------------------------------------------------------------------


@pytest.fixture
def saved(slow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "model.keras"
    slow.save(path)
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    (tmp_path / "given_data.py").write_text(
        "import numpy as np\n\ndef make():\n    data = np.load('data.npz')\n    return data['x'], data['y']\n\n"
        "def broken():\n    raise OSError('no such share')\n\nnumber = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("given_data", None)
    return path


def test_command_line(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", str(saved), "--data", "given_data:make", "--batches", "6"]
    assert main([*arguments, "--fail-on", "error", "--log-dir", "logs/run"]) == FOUND
    assert "Momentum too high for this run" in capsys.readouterr().out
    assert main(["report", "logs", "--json"]) == OK
    reported = json.loads(capsys.readouterr().out)
    assert main([*arguments, "--json"]) == OK
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == reported.keys() and found["runs"][0]["verdict"] == reported["runs"][0]["verdict"]


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        ("nothing.keras", "given_data:make", "Keras cannot load 'nothing.keras'"),
        ("nothing.pt", "given_data:make", "call tb_bnlens.torch.check(model, data)"),
        ("model.keras", "given_data", "expected MODULE:FUNCTION"),
        ("model.keras", "no_such_module:make", "cannot be imported"),
        ("model.keras", "given_data:nothing", "has no function 'nothing'"),
        ("model.keras", "given_data:number", "has no function 'number'"),
        ("model.keras", "given_data:broken", "given_data:broken failed: OSError: no such share"),
    ],
)
@pytest.mark.usefixtures("saved")
def test_command_line_errors(model: str, data: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", model, "--data", data]) == UNREADABLE
    assert said in capsys.readouterr().err


def test_command_line_without_tensorflow(tmp_path: Path) -> None:
    script = (
        "import sys\nsys.modules['keras'] = None\nsys.modules['tensorflow'] = None\n"
        "from tb_bnlens.cli import main\nsys.exit(main(['check', 'm.keras', '--data', 'a:b']))"
    )
    root = Path(tb_bnlens.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == UNREADABLE, done.stderr
    assert "is not installed" in done.stderr and "Traceback" not in done.stderr
