"""What Keras 2 has and Keras 3 has not: fused layers, legacy optimizers, generators, frozen layers of old.

``test_keras.py`` shows for Keras 2 too that the lens is harmless and its record true.
"""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tb_bnlens
from tb_bnlens.frameworks.keras3.adapter import KerasModel
from tb_bnlens.frameworks.keras3.layers import find_layers
from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.segments import Segments
from tb_bnlens.report import run_report
from tests.frameworks.test_keras import assert_identical, lens, record, state

SAMPLES, SIZE = 44, 8
RNG = np.random.default_rng(0)
X = RNG.normal(2.0, 3.0, (SAMPLES, 6, 6, 3)).astype("float32")
Y = (X.mean((1, 2, 3)) > 2.0).astype("int32")


def network(keras: Any, optimizer: Any, kind: Any = None, drop: float = 0.3, **options: Any) -> Any:
    """Every layer that averages statistics in its own way, compiled."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    inputs = keras.Input((6, 6, 3))
    x = layers.BatchNormalization(momentum=0.9, name="fused")(layers.Conv2D(4, 3)(inputs))
    x = layers.Dropout(drop, seed=7)(layers.GlobalAveragePooling2D()(x))
    x = layers.BatchNormalization(momentum=0.9, name="flat")(layers.Dense(6, activity_regularizer="l2")(x))
    x = layers.BatchNormalization(momentum=0.9, renorm=True, name="renorm")(x)
    x = layers.experimental.SyncBatchNormalization(momentum=0.9, name="synchronized")(x)
    x = layers.BatchNormalization(momentum=0.9, trainable=False, name="frozen")(x)
    model = (kind or keras.Model)(inputs, layers.Dense(2)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], weighted_metrics=["accuracy"], **options)
    return model


def own_step(keras: Any) -> type:
    """A model with its own training step, loss and metric."""

    class Own(keras.Model):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.seen = keras.metrics.Mean("seen")

        def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> Any:
            loss = super().compute_loss(x, y, y_pred, sample_weight)
            self.seen.update_state(loss)
            return loss

        def train_step(self, data: Any) -> Any:
            x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True), weight)
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            return {"loss": loss, "seen": self.seen.result()}

    return Own


def shuffled(_keras: Any) -> dict[str, Any]:
    data = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(SAMPLES).batch(SIZE)
    return {"x": data, "validation_data": (X, Y), "class_weight": {0: 1.0, 1: 2.0}}


def by_index(keras: Any) -> dict[str, Any]:
    class Batches(keras.utils.Sequence):  # type: ignore[misc]
        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> Any:
            return X[index * SIZE :][:SIZE], Y[index * SIZE :][:SIZE]

    return {"x": Batches(), "validation_data": Batches()}


def generated(_keras: Any) -> dict[str, Any]:
    # A thread reads ahead, as far as it comes.
    draw = np.random.default_rng(3)

    def batches() -> Iterator[Any]:
        while True:
            chosen = draw.integers(0, SAMPLES, SIZE)
            yield X[chosen], Y[chosen], np.linspace(0.5, 1.5, SIZE)

    return {"x": batches(), "steps_per_epoch": 5}


SET_UPS: dict[str, tuple[Any, Any]] = {
    "dataset, class weights": (lambda keras: network(keras, keras.optimizers.Adam(0.01)), shuffled),
    "sequence, legacy optimizer": (
        lambda keras: network(keras, keras.optimizers.legacy.Adam(keras.optimizers.schedules.CosineDecay(0.01, 50))),
        by_index,
    ),
    "generator, own step, several steps at once": (
        lambda keras: network(keras, keras.optimizers.SGD(0.01), own_step(keras), steps_per_execution=3),
        generated,
    ),
}


@pytest.mark.parametrize("name", SET_UPS)
def test_training_is_the_same_to_the_bit(keras: Any, name: str, tmp_path: Path) -> None:
    make, data = SET_UPS[name]

    def run(*callbacks: Any) -> tuple[list[Any], Any, Any]:
        model = make(keras)
        history = model.fit(**data(keras), epochs=2, verbose=0, callbacks=list(callbacks))
        # The numbers that are drawn next, too.
        return [*state(model), np.array(random.random()), tf.random.uniform((3,)).numpy()], history.history, model

    plain, shown, _ = run()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="BN Lens|bn_lens", append=False)
        watched, watched_shown, model = run(lens(tmp_path, overhead=1.0))
    assert_identical(plain, watched)
    assert shown == watched_shown
    for layer in model._flatten_layers():
        assert not {"call", "update_state_before", "_assign_moving_average", "_assign_new_value"} & vars(layer).keys()
    history = record(tmp_path)
    assert history.manifest.framework == "tf_keras"
    assert [layer.name for layer in history.manifest.layers] == ["fused", "flat", "renorm", "synchronized", "frozen"]
    assert {"inference", "batch", "recalibrated", "training"} <= set(history.evidence[-1].passes)
    assert not {"losses", "samples"} & history.manifest.not_evaluated.keys()
    assert not [e for e in history.manifest.events if e.kind in ("outside", "recompile")]


def statistics(model: Any) -> Moments:
    layers = find_layers(model)
    kinds = ("moving_mean", "moving_variance")
    return Moments(*(np.concatenate([getattr(t.layer, kind).numpy() for t in layers]) for kind in kinds))


def test_passes_are_those_of_keras(keras: Any) -> None:
    """The step goes where the pass says, ``evaluate`` gives the losses, and a fused variance is the unbiased one."""
    model = network(keras, keras.optimizers.SGD(0.01), drop=0.0)
    model.fit(X, Y, batch_size=SIZE, epochs=2, verbose=0)
    layers = find_layers(model)
    runner = KerasModel(model).runner(layers, Segments([t.channels for t in layers]))
    batch = (tf.constant(X), tf.constant(Y))
    before = state(model)
    inferred, trained = runner.inference(batch, statistics(model)), runner.training(batch)
    normalized = runner.batch(batch, statistics(model))
    metrics = runner.update(runner.metric_state(), batch, inferred.predictions)
    shown = runner.metrics(metrics)
    assert_identical(before, state(model))

    evaluated = model.evaluate(X, Y, batch_size=SAMPLES, verbose=0, return_dict=True)
    assert inferred.loss == pytest.approx(evaluated.pop("loss"), rel=1e-6)
    assert shown == pytest.approx(evaluated, rel=1e-6)
    assert runner.rows(batch, inferred.predictions, np.arange(SAMPLES)).mean() == pytest.approx(inferred.loss, rel=0.1)

    seen = keras.Model(model.input, model.layers[1].output)(X).numpy().reshape(-1, 4).astype(np.float64)
    assert trained.moments is not None and normalized.moments is not None and trained.after is not None
    for passed in (trained.moments, normalized.moments):
        np.testing.assert_allclose(passed.mean[:4], seen.mean(0), rtol=1e-5)
        np.testing.assert_allclose(passed.variance[:4], seen.var(0, ddof=1), rtol=1e-5)
    # One step at the same weights moves the statistics as the pass has said.
    model.train_on_batch(X, Y)
    after = statistics(model)
    np.testing.assert_allclose(after.mean, trained.after.mean, rtol=1e-4, atol=1e-6)
    spread = [t.averaged.numpy() for t in layers]
    np.testing.assert_allclose(np.concatenate(spread), trained.after.spread, rtol=1e-4, atol=1e-6)
    flat = slice(4, 10)
    gained = (after.variance[flat] - 0.9 * state_of(before, model, "flat")) / 0.1
    np.testing.assert_allclose(trained.moments.variance[flat], gained, rtol=1e-3)


def state_of(before: list[Any], model: Any, name: str) -> Any:
    """The moving variance of a layer as it was."""
    variables = [v.ref() for v in model.variables]
    return before[variables.index(model.get_layer(name).moving_variance.ref())]


def test_recalibrate_takes_the_unbiased_variance_in_fused_layers(keras: Any) -> None:
    model = network(keras, "sgd")
    x = np.tile(X, (3, 1, 1, 1))
    before = model.get_weights()
    with tb_bnlens.recalibrate(model, x, batch_size=len(x)) as change:
        assert change.layers == ("fused", "flat", "renorm", "synchronized") and "frozen" in change.skipped
        seen = keras.Model(model.input, model.layers[1].output)(x).numpy().reshape(-1, 4).astype(np.float64)
        np.testing.assert_allclose(model.get_layer("fused").moving_variance, seen.var(0, ddof=1), rtol=1e-5)
        renorm = model.get_layer("renorm")
        np.testing.assert_allclose(np.square(renorm.moving_stddev), renorm.moving_variance + 1e-3, rtol=1e-5)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_check_of_a_loaded_model_builds_nothing_in_it(keras: Any, tmp_path: Path) -> None:
    model = network(keras, "adam")
    model.compile("adam", model.loss, metrics=["accuracy", "AUC"])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    onehot = np.eye(2, dtype="float32")[Y]
    loaded.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy", "AUC"])
    before = len(loaded.variables)
    found = tb_bnlens.check(loaded, (X, onehot), quiet=True)
    assert found.report["losses"]["metrics"].keys() == {"accuracy", "auc"}
    assert len(loaded.variables) == before and not loaded.compiled_metrics.built and not loaded.compiled_loss.built
    loaded.evaluate(X, onehot, verbose=0)
    assert loaded.metrics_names == ["loss", "accuracy", "auc"]


def test_passes_that_would_change_training_are_refused(keras: Any, tmp_path: Path) -> None:
    class Counting(keras.layers.Layer):  # type: ignore[misc]
        def build(self, _shape: Any) -> None:
            self.calls = self.add_weight(shape=(), trainable=False)

        def call(self, x: Any) -> Any:
            self.calls.assign_add(1.0)
            return x

    def run(*callbacks: Any) -> tuple[list[Any], Any]:
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.layers.BatchNormalization(), Counting(), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        model.fit(X[:, 0, 0], Y, batch_size=SIZE, verbose=0, callbacks=list(callbacks))
        return state(model), model

    (plain, _), (watched, model) = run(), run(lens(tmp_path))
    assert_identical(plain, watched)
    assert "changes state outside" in record(tmp_path).manifest.not_evaluated["losses"]
    tf.config.run_functions_eagerly(True)
    try:
        with pytest.raises(RuntimeError, match="run_functions_eagerly"):
            tb_bnlens.recalibrate(model, np.tile(X[:, 0, 0], (3, 1)))
    finally:
        tf.config.run_functions_eagerly(False)


def base(normalization: Any, keras: Any) -> Any:
    """Convolutions that were trained on inputs of another scale, and are frozen."""
    made = keras.Sequential([keras.Input((6, 6, 3))], name="base")
    for block in ("one", "two"):
        made.add(keras.layers.Conv2D(8, 3, use_bias=False, padding="same"))
        made.add(normalization(momentum=0.9, name=f"{block}_bn"))
        made.add(keras.layers.ReLU())
    made.add(keras.layers.GlobalAveragePooling2D())
    model = keras.Sequential([made, keras.layers.Dense(2)])
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*patterns(0), batch_size=32, epochs=4, verbose=0)
    made.trainable = False
    return made


def patterns(seed: int, gain: float = 1.0, offset: float = 0.0) -> tuple[Any, Any]:
    """Stripes across or along, in noise."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, 640)
    stripes = np.tile(np.sign(np.arange(6) % 2 - 0.5), (6, 1))
    images = np.stack([stripes, stripes.T])[kind][..., None] + rng.normal(0, 1.0, (640, 6, 6, 3))
    return (gain * images + offset).astype("float32"), kind


@pytest.mark.parametrize("layer", ["of Keras 1", "of Keras 2"])
def test_a_pretrained_base(keras: Any, layer: str, tmp_path: Path) -> None:
    """Frozen layers of Keras 1 go on training on the batch's statistics, and inference uses those of pretraining."""
    former = layer == "of Keras 1"
    normalization = tf.compat.v1.keras.layers.BatchNormalization if former else keras.layers.BatchNormalization
    keras.utils.set_random_seed(0)
    model = keras.Sequential([base(normalization, keras), keras.layers.Dense(2)])
    model.compile(keras.optimizers.Adam(0.02), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = patterns(1, 0.3, 2.0) if former else patterns(1)
    model.fit(*data, batch_size=32, epochs=4, verbose=0, callbacks=[lens(tmp_path, overhead=1.0)])
    report = run_report(record(tmp_path))
    raised = {
        f["rule"]: f for f in report["findings"] if f["status"] == "fail" and f["severity"] in ("error", "warning")
    }
    if not former:
        assert raised.keys() == set(), report["verdict"]
        return
    assert raised.keys() == {"frozen-mismatch"}, report["verdict"]
    inference, batch = report["losses"]["inference"], report["losses"]["batch"]
    assert inference and batch and inference > 3 * batch
    assert raised["frozen-mismatch"]["layers"] == ["base/one_bn", "base/two_bn"]


def test_statistics_that_lag_and_the_rescue(keras: Any, tmp_path: Path) -> None:
    def trained(momentum: float, directory: Path) -> tuple[Any, Any]:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Conv2D(8, 3), keras.layers.BatchNormalization()])
        for layer in (keras.layers.ReLU(), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)):
            model.add(layer)
        tb_bnlens.set_momentum(model, momentum)
        model.compile(
            keras.optimizers.Adam(0.01),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        model.fit(*patterns(2, 2.0, 3.0), batch_size=32, epochs=8, verbose=0, callbacks=[lens(directory, overhead=1.0)])
        return model, run_report(record(directory))

    model, report = trained(0.9995, tmp_path / "high")
    (found,) = (f for f in report["findings"] if f["rule"] == "momentum-too-high")
    assert found["status"] == "fail" and found["severity"] == "error"
    assert "tb_bnlens.recalibrate" in found["rescue"]
    stale = model.evaluate(*patterns(2, 2.0, 3.0), verbose=0)[0]
    scope: dict[str, Any] = {"model": model, "data": patterns(2, 2.0, 3.0)}
    exec(found["rescue"], scope)
    assert model.evaluate(*patterns(2, 2.0, 3.0), verbose=0)[0] < stale
    _, healthy = trained(0.9, tmp_path / "low")
    assert healthy["severity"] in ("none", "info"), healthy["verdict"]


def test_keras_3_is_not_loaded(keras: Any) -> None:
    assert "keras" not in sys.modules
    assert tf.keras.Model is keras.Model
    assert issubclass(tb_bnlens.BNLens, tf.keras.callbacks.Callback)


def test_a_strategy_with_one_replica(keras: Any, tmp_path: Path) -> None:
    """Its variables give NumPy no array, the count of steps among them."""
    x = RNG.normal(size=(SAMPLES, 5)).astype("float32")

    def trained(*callbacks: Any) -> Any:
        keras.utils.set_random_seed(1)
        with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
            parts = [keras.layers.Dense(6), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
            model = keras.Sequential([keras.Input((5,)), *parts])
            model.compile("adam", "mse", steps_per_execution=2)
        history = model.fit(x, x[:, :1], batch_size=SIZE, epochs=2, verbose=0, callbacks=list(callbacks))
        return [value.tobytes() for value in model.get_weights()], history.history

    assert trained() == trained(lens(tmp_path))
    assert np.all(np.isfinite(record(tmp_path).loss("inference")))
