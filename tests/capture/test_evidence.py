"""The measurement on many batches, against plain Keras."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_bnlens import Recorder
from tb_bnlens.capture import other_batches
from tb_bnlens.capture.reservoir import MOST
from tb_bnlens.capture.spread import evenly
from tb_bnlens.frameworks.keras3.runner import KerasRunner
from tb_bnlens.history import Evidence
from tests.capture import truth
from tests.capture.runs import assert_same, built, fit, lens, record, state
from tests.capture.setups import Setup

SIZE, FEATURES, CLASSES = 16, 6, 3
LAYERS = ("a", "b", "c")
FEW = SIZE * 11 + 5
"""Samples for twelve batches, the last one shorter: each costs some fifty passes of the lens, and as many of Keras'."""


def arrays(samples: int = SIZE * 20 + 5) -> tuple[Any, Any]:
    rng = np.random.default_rng(5)
    x = rng.normal(2.0, 1.5, (samples, FEATURES)).astype(np.float32)
    return x, np.argmax(x[:, :CLASSES] + rng.normal(size=(samples, CLASSES)), 1)


def model(frozen: str = "", dropout: float = 0.4, momentum: float = 0.98, optimizer: Any = None, **options: Any) -> Any:
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(7)
    inputs = x = keras.Input((FEATURES,))
    for name in LAYERS:
        x = keras.layers.Dense(8, kernel_regularizer=keras.regularizers.L2(1e-3))(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=momentum, name=name)(x))
        x = keras.layers.Dropout(dropout)(x)
    made = keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(x))
    if frozen:
        made.get_layer(frozen).trainable = False
    options = {"metrics": ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")], **options}
    made.compile(optimizer or keras.optimizers.SGD(0.05, 0.9), "sparse_categorical_crossentropy", **options)
    return built(made, *arrays(2))


def trained(
    path: Path, made: Any, epochs: int = 2, samples: int = SIZE * 20 + 5, **options: Any
) -> tuple[Evidence, list[Any]]:
    """The evidence, and the batches that it says it was measured on."""
    x, y = arrays(samples)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(SIZE)
    made.fit(data, shuffle=False, epochs=epochs, verbose=0, callbacks=[lens(path, **options)])
    found = record(path).evidence[-1]
    batches = list(data)
    return found, [batches[(step - 1) % len(batches)] for step in found.batch_steps]


def assert_losses(found: Evidence, name: str, expected: list[float]) -> None:
    np.testing.assert_allclose(found.passes[name].losses, expected, rtol=1e-5, err_msg=name)


@dataclass
class Measured:
    """A trained model, its evidence, the batches of the evidence and their statistics."""

    made: Any
    trains: list[str]
    """Layers that are not frozen."""
    found: Evidence
    batches: list[Any]

    @property
    def sizes(self) -> list[int]:
        return self.found.batch_sizes.tolist()

    def statistics(self, names: Sequence[str], **options: Any) -> list[Any]:
        return [truth.statistics(self.made, x, names, **options) for x, _ in self.batches]

    def of_others(self, statistics: list[Any]) -> list[Any]:
        """For each batch the mean over the others."""
        return [truth.mean_of(statistics, self.sizes, i) for i in range(len(statistics))]

    def assert_on(self, name: str, moments: list[Any]) -> None:
        """A pass has the losses on these statistics, one of each batch."""
        expected = [truth.loss_with(self.made, *pair) for pair in zip(self.batches, moments, strict=True)]
        assert_losses(self.found, name, expected)

    def assert_by_batch(self, name: str, batches: list[Any], layers: Sequence[str]) -> None:
        """A pass has the losses of these batches with their own statistics in these layers."""
        assert_losses(self.found, name, [truth.loss_by_batch(self.made, b, layers) for b in batches])


def validation() -> tuple[Any, Any]:
    x, y = arrays(3 * SIZE)
    return x + 3, y


@pytest.fixture(scope="module", params=["", "b"], ids=["all", "one frozen"])
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    made = model(request.param)
    found, batches = trained(tmp_path_factory.mktemp("measured"), made, samples=FEW, validation_data=validation())
    return Measured(made, [name for name in LAYERS if name != request.param], found, batches)


def test_what_is_measured(measured: Measured) -> None:
    found, batches = measured.found, measured.batches
    assert found.moment == "end" and found.step == 24 and len(batches) >= MOST / 2 - 1
    assert measured.sizes == [len(y) for _, y in batches] and not (set(found.not_evaluated) - {"pooled"})


def test_passes_against_keras(measured: Measured) -> None:
    assert_losses(measured.found, "inference", [truth.loss(measured.made, b) for b in measured.batches])
    measured.assert_by_batch("batch", measured.batches, LAYERS)
    own = measured.statistics(measured.trains)
    measured.assert_on("recalibrated", measured.of_others(own))
    measured.assert_on("with_dropout", measured.of_others(measured.statistics(measured.trains, training=True)))
    median = {name: tuple(np.median([s[name][k] for s in own], axis=0) for k in (0, 1)) for name in measured.trains}
    measured.assert_on("robust", [median] * len(own))


def test_rows_put_together_in_another_way_against_keras(measured: Measured) -> None:
    order = np.random.default_rng(other_batches.SEED).permutation(sum(measured.sizes))
    x, y = (np.concatenate([np.asarray(b[k]) for b in measured.batches])[order] for k in (0, 1))
    stops = np.cumsum(measured.sizes)[:-1]
    mixed = list(zip(np.split(x, stops), np.split(y, stops), strict=True))
    measured.assert_by_batch("recombined", mixed, measured.trains)
    few = evenly(len(measured.batches), other_batches.ROUGH)
    targets_of_others = [(measured.batches[i][0], mixed[i][1]) for i in few]
    measured.assert_by_batch("mismatched", targets_of_others, measured.trains)
    own = [np.asarray(measured.batches[i][1]) for i in few]
    orders = [np.random.default_rng(other_batches.SEED).permutation(len(y)) for y in own]
    of_company = [y[np.roll(order, 1)][np.argsort(order)] for y, order in zip(own, orders, strict=True)]
    swapped = [(measured.batches[i][0], y) for i, y in zip(few, of_company, strict=True)]
    measured.assert_by_batch("swapped", swapped, measured.trains)


def test_passes_of_a_frozen_layer_against_keras(measured: Measured) -> None:
    if measured.trains == list(LAYERS):
        assert not {"batch_as_trained", "put_right:frozen", "only:frozen"} & set(measured.found.passes)
        return
    measured.assert_by_batch("batch_as_trained", measured.batches, measured.trains)
    all_layers = measured.of_others(measured.statistics(LAYERS))
    measured.assert_on("recalibrated_all", all_layers)
    measured.assert_on("put_right:frozen", [{"b": moments["b"]} for moments in all_layers])
    measured.assert_by_batch("only:frozen", measured.batches, ("a", "c"))
    assert measured.found.groups["frozen"] == (1,) and measured.found.groups["updating"] == (0, 2)


def test_metrics_and_rows_are_those_of_keras(measured: Measured) -> None:
    made, found, batches = measured.made, measured.found, measured.batches
    x, y = (np.concatenate([np.asarray(b[k]) for b in batches]) for k in (0, 1))
    shown = made.evaluate(x, y, verbose=0, return_dict=True)
    assert shown.pop("loss") == pytest.approx(found.passes["inference"].mean, rel=1e-5)
    assert found.passes["inference"].metrics == pytest.approx(shown, rel=1e-5)
    assert set(found.passes["batch"].metrics) == {"accuracy", "top2"}

    rows = truth.loss_of_rows(made, x, y)
    assert rows[0] == pytest.approx(truth.loss(made, (x[:1], y[:1])), rel=1e-5)
    summary = found.samples["inference"]
    assert summary["count"] == len(rows)
    assert [summary[k] for k in ("mean", "median", "max")] == pytest.approx(
        [np.mean(rows), np.median(rows), np.max(rows)], rel=1e-5
    )
    difference = found.samples["inference-batch"]["mean"]
    assert difference == pytest.approx(found.mean("inference") - found.mean("batch"), rel=1e-4)


def test_rows_of_a_stateful_network_have_a_place(tmp_path: Path) -> None:
    """In another batch, or after the step that has moved the state on, a loss says nothing."""
    made = keras.Sequential(
        [keras.Input(batch_shape=(SIZE, 3, 1)), keras.layers.LSTM(4, stateful=True), truth.BN(), keras.layers.Dense(1)]
    )
    made.compile("sgd", "mse")
    x = np.random.default_rng(1).normal(size=(8 * SIZE, 3, 1)).astype(np.float32)
    made.fit(x, x[:, 0], batch_size=SIZE, shuffle=False, verbose=0, callbacks=[lens(tmp_path)])
    read = record(tmp_path)
    assert not read.evidence
    assert np.isnan(read.loss("updated")).all() and np.isfinite(read.loss("inference")).any()
    assert any("stateful RNN" in note for note in read.manifest.notes)


def test_the_spread_of_paired_differences() -> None:
    losses = {"inference": np.array([2.0, 4.0, 3.0]), "batch": np.array([1.0, 1.0, 1.0])}
    found = evidence_of(losses, sizes=[10, 10, 10])
    assert found.difference("inference", "batch") == pytest.approx((2.0, 1 / np.sqrt(3)))
    assert np.isnan(found.difference("inference", "robust")).all()
    assert evidence_of(losses, sizes=[1, 1, 2]).mean("inference") == 3.0


def evidence_of(losses: dict[str, Any], sizes: list[int]) -> Evidence:
    from tb_bnlens.history import PassResult

    counts = np.array(sizes)
    passes = {name: PassResult(values, counts) for name, values in losses.items()}
    return Evidence(3, "end", counts, counts, counts, passes)


def test_nothing_is_changed_by_it(tmp_path: Path) -> None:
    """Weights, moving statistics, optimizer, seeds, metrics and both global generators, to the bit."""
    x, y = arrays(FEW)

    def run(*callbacks: Any) -> dict[str, Any]:
        made = model()
        made.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
        setup = Setup("", model, data=lambda: {"x": x, "y": y, "batch_size": SIZE})
        return state(fit(setup, *callbacks, model=made))

    assert_same(run(), run(lens(tmp_path)))
    assert record(tmp_path).evidence


def test_slowness_changes_no_batch_and_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick, _ = trained(tmp_path / "quick", model(), overhead=0.01)
    inference = KerasRunner.inference

    def slow(self: Any, *args: Any) -> Any:
        time.sleep(0.01)
        return inference(self, *args)

    monkeypatch.setattr(KerasRunner, "inference", slow)
    busy, _ = trained(tmp_path / "busy", model(), overhead=0.01)
    assert busy.batch_steps.tolist() == quick.batch_steps.tolist()
    assert {"inference", "batch", "recalibrated", "training"} <= set(busy.passes)
    for name in set(busy.passes) & set(quick.passes):
        np.testing.assert_array_equal(busy.passes[name].losses, quick.passes[name].losses)


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a large model in a short run: nothing is left for more than the essential passes."""
    monkeypatch.setattr("tb_bnlens.capture.prober.JUDGEMENT_SECONDS", 1e-9)
    monkeypatch.setattr("tb_bnlens.capture.prober.JUDGEMENT_SHARE", 0.0)


@pytest.mark.usefixtures("no_time")
def test_passes_that_no_time_is_left_for_are_not_evaluated(tmp_path: Path) -> None:
    found, _ = trained(tmp_path, model(optimizer=keras.optimizers.Adam(3e-3)), overhead=0.01)
    made = {name for name in found.passes if not name.startswith(("put_right:", "only:", "with_dropout"))}
    replayed = {name for name in made if name.startswith("replay_")}
    recombined = {"recombined", "recombined_inference"}
    assert made - replayed == {"inference", "batch", "recalibrated", "training", "perturbed", *recombined}, (
        "passes that equal others cost nothing"
    )
    # Of 42 steps a quarter forgets the start at a momentum of 0.7.
    assert replayed == {"replay_0.5", "replay_0.8", "replay_0.9"}
    assert found.not_evaluated["robust"] == "no time was left" and len(found.batch_sizes) == 4


@pytest.mark.usefixtures("no_time")
def test_what_is_worse_at_inference_is_explained_whatever_time_is_left(tmp_path: Path) -> None:
    found, _ = trained(tmp_path, model(dropout=0.0, momentum=0.999), epochs=6, overhead=0.01)
    assert found.mean("inference") > 1.1 * found.mean("batch")
    assert {"robust", "recombined", "mismatched", "put_right:updating", "replay_0.999"} <= found.passes.keys()
    assert "no time was left" not in found.not_evaluated.values() and len(found.batch_sizes) == 8


@pytest.mark.usefixtures("no_time")
def test_whether_training_has_learned_is_measured_beside_frozen_layers_whatever_time_is_left(tmp_path: Path) -> None:
    """No other loss tells what statistics cost that training itself runs on."""
    found, _ = trained(tmp_path, model("b", optimizer=keras.optimizers.Adam(3e-3)), overhead=0.01)
    assert "mismatched" in found.passes and found.not_evaluated["robust"] == "no time was left"


class HardWired(keras.Model):  # type: ignore[misc]
    """Two BatchNorm layers, some called with ``training=True`` whatever the mode."""

    def __init__(self, wired: tuple[bool, bool]) -> None:
        super().__init__()
        self.dense, self.out, self.wired = keras.layers.Dense(8), keras.layers.Dense(CLASSES), wired
        self.norms = [truth.BN(name=name) for name in ("a", "b")]

    def call(self, x: Any, training: Any = None) -> Any:
        x = self.dense(x)
        for norm, wired in zip(self.norms, self.wired, strict=True):
            x = norm(x, training=True if wired else training)
        return self.out(x)


@pytest.mark.parametrize("wired", [(True, True), (False, True), (False, False)])
def test_training_true_hard_wired(wired: tuple[bool, bool], tmp_path: Path) -> None:
    """Inference does not react to the statistics of these layers; rows alone tell what it is worth."""
    made = HardWired(wired)
    made(arrays(2)[0])
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    built(made, *arrays(2))
    found, batches = trained(tmp_path, made, samples=FEW)
    assert found.layers["batch_at_inference"].tolist() == list(map(float, wired))
    assert ("one_at_a_time" in found.passes) == ("on_moving" in found.passes) == any(wired)
    away = found.passes["perturbed"].losses
    unmoved = np.array_equal(away, found.passes["inference"].losses[: len(away)])
    assert unmoved == all(wired)
    if not any(wired):
        return
    alone = found.passes["one_at_a_time"]
    assert alone.sizes.tolist() == [1] * 64
    total = int(found.batch_sizes.sum())
    x, y = (np.concatenate([np.asarray(b[k]) for b in batches]) for k in (0, 1))
    rows = np.unique(np.linspace(0, total - 1, 64).astype(int))
    with truth.kept(made):
        expected = [truth.loss(made, (x[i : i + 1], y[i : i + 1])) for i in rows]
    np.testing.assert_allclose(alone.losses, expected, rtol=1e-4)
    for norm in made.norms:
        norm.trainable = False  # then a layer is on its moving statistics whatever it is called with
    assert_losses(found, "on_moving", [truth.loss(made, b) for b in batches])
    assert set(found.passes["inference"].metrics) == {"accuracy"}


def test_rows_of_weight_0_do_not_count(tmp_path: Path) -> None:
    """Padding is normalized though the loss leaves it out: statistics of the rows that count are another pass."""
    made = model(dropout=0.0)
    x, y = arrays(SIZE * 20)
    weight = np.ones(len(x), np.float32)
    weight[SIZE // 4 :: SIZE // 2] = 0
    x[weight == 0] = 0
    data = tf.data.Dataset.from_tensor_slices((x, y, weight)).batch(SIZE)
    made.fit(data, shuffle=False, epochs=2, verbose=0, callbacks=[lens(tmp_path)])
    found = record(tmp_path).evidence[-1]
    batches = [list(data)[(step - 1) % 20] for step in found.batch_steps]
    every = [truth.statistics(made, tf.boolean_mask(b[0], b[2] > 0), LAYERS) for b in batches]
    renewed = truth.mean_of(every, [1] * len(batches))
    assert_losses(found, "counted", [truth.loss_with(made, b, renewed) for b in batches])
    assert found.layers["counted_distance_rms"][0] > 0.1
    rows = np.concatenate([truth.loss_of_rows(made, b[0], b[1])[b[2] > 0] for b in batches])
    assert found.samples["inference"]["count"] == len(rows)
    assert found.samples["inference"]["mean"] == pytest.approx(np.mean(rows), rel=1e-4)


def test_rows_far_out_are_left_out_of_the_ordinary_statistics(tmp_path: Path) -> None:
    made, (x, y) = model(dropout=0.0), arrays(SIZE * 20)
    x[::13] *= 1000
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(SIZE)
    made.fit(data, shuffle=False, verbose=0, callbacks=[lens(tmp_path)])
    found = record(tmp_path).evidence[-1]
    batches = [list(data)[(step - 1) % 20] for step in found.batch_steps]
    kept = [np.abs(np.asarray(b[0])).max(axis=1) < 20 for b in batches]
    assert found.layers["extreme_share"] == pytest.approx([1 - np.mean(kept)] * 3)
    every = [truth.statistics(made, tf.boolean_mask(b[0], rows), LAYERS) for b, rows in zip(batches, kept, strict=True)]
    ordinary = truth.mean_of(every, [int(rows.sum()) for rows in kept])
    assert_losses(found, "ordinary", [truth.loss_with(made, b, ordinary) for b in batches])


def test_a_poisoned_channel_and_a_lag_have_a_share_each(tmp_path: Path) -> None:
    made = model(momentum=0.999, dropout=0.0)

    class Poison(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            moving = self.model.get_layer("a").moving_mean
            moving.assign(np.where(np.arange(8) == 3, np.nan, moving.numpy()))

    x, y = arrays()
    made.fit(x, y, batch_size=SIZE, epochs=2, shuffle=False, verbose=0, callbacks=[Poison(), lens(tmp_path)])
    found = record(tmp_path).evidence[-1]
    assert np.isnan(found.mean("inference"))
    assert found.groups["nonfinite"] == (0,)
    repaired, lag_too = found.mean("put_right:nonfinite"), found.mean("put_right:updating")
    assert repaired > 1.05 * lag_too and lag_too == pytest.approx(found.mean("recalibrated"), rel=1e-3)
    assert found.layers["nonfinite_share"].tolist() == [1 / 8, 0, 0]


@pytest.mark.parametrize("calls", [1, 2])
def test_updates_are_counted_from_the_observed_decay(calls: int, tmp_path: Path) -> None:
    """A layer that is also called on data that the lens does not see decays twice as fast."""
    made = model(dropout=0.0, momentum=0.99, metrics=None)
    optimizer = keras.optimizers.SGD(1e-3)
    x, y = arrays(SIZE * 160)
    other = np.random.default_rng(0).normal(-2.0, 1.0, (SIZE, FEATURES)).astype(np.float32)

    @tf.function
    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            loss = made.compute_loss(x, y, made(x, training=True))
            if calls == 2:
                made(other, training=True)
        variables = made.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    with Recorder(made, str(tmp_path / "run"), on_error="raise") as opened:
        for i in range(0, len(x), SIZE):
            batch = tf.constant(x[i : i + SIZE]), tf.constant(y[i : i + SIZE])
            step(*batch)
            opened.record(*batch)
    found = record(tmp_path).evidence[-1]
    explained = found.layers["update_explained"]
    np.testing.assert_allclose(1 - found.layers["decay_observed"], calls * 0.01, rtol=0.2)
    np.testing.assert_allclose(found.layers["decay_expected"], 0.99, rtol=1e-6)
    assert np.all(explained > 0.999) if calls == 1 else explained[0] < 0.6 and np.all(explained < 0.98)


def test_validation_data(measured: Measured) -> None:
    made, found, (x, y) = measured.made, measured.found, validation()
    batches = [(x[i : i + SIZE], y[i : i + SIZE]) for i in range(0, len(x), SIZE)]
    results = found.validation
    assert results["inference"].losses == pytest.approx([truth.loss(made, b) for b in batches], rel=1e-5)
    assert results["batch"].losses == pytest.approx([truth.loss_by_batch(made, b, LAYERS) for b in batches], rel=1e-5)
    assert set(found.validation["inference"].metrics) == {"accuracy", "top2"}
    assert found.layers["validation_distance_rms"][0] > 1


def test_a_single_epoch_is_covered_whole(tmp_path: Path) -> None:
    found, _ = trained(tmp_path, model(), epochs=1)
    assert found.batch_steps[0] <= 3 and found.batch_steps[-1] >= 19
    assert found.batch_sizes.tolist()[-1] in (5, SIZE)


def test_measurements_during_training_are_smaller(tmp_path: Path) -> None:
    _, _ = trained(tmp_path, model(), epochs=8)
    *interim, last = record(tmp_path).evidence
    assert interim and last.moment == "end" and last.step == 8 * 21
    for found in interim:
        assert found.moment == "interim" and len(found.batch_sizes) == 8 and found.step + 1 >= found.batch_steps.max()
        assert set(found.passes) == {"inference", "batch", "recalibrated", "training", "with_dropout"}
        assert np.all(found.layers["distance_rms"] > 0)


def test_a_loss_that_is_given_and_no_metrics(tmp_path: Path) -> None:
    made = model()
    x, y = arrays(SIZE * 30)
    bare = keras.Model(made.input, made.output)
    loss = keras.losses.sparse_categorical_crossentropy
    with Recorder(bare, str(tmp_path / "run"), loss=loss, on_error="raise") as opened:
        for i in range(0, len(x), SIZE):
            bare(x[i : i + SIZE], training=True)
            opened.record(x[i : i + SIZE], y[i : i + SIZE])
    found = record(tmp_path).evidence[-1]
    right = [
        float(np.mean(np.argmax(bare(x[k * SIZE : (k + 1) * SIZE], training=False), 1) == y[k * SIZE : (k + 1) * SIZE]))
        for k in found.batch_steps - 1
    ]
    assert found.passes["inference"].metrics == {"accuracy": pytest.approx(np.mean(right))}
    last = slice((int(found.batch_steps[-1]) - 1) * SIZE, int(found.batch_steps[-1]) * SIZE)
    expected = np.mean(loss(y[last], bare(x[last], training=False)))
    assert found.passes["inference"].losses[-1] == pytest.approx(expected, rel=1e-5)
    assert found.samples["inference"]["count"] > 0
