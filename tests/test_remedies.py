"""Recalibration and the momentum setter, against statistics computed with NumPy and on story 1."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_bnlens import recalibrate, set_momentum
from tb_bnlens.frameworks.keras3.backend import backend
from tb_bnlens.frameworks.keras3.layers import find_layers
from tb_bnlens.frameworks.keras3.runner import KerasRunner
from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.segments import Segments


def images(samples: int = 160, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    x = rng.normal(2.0, 3.0, (samples, 8, 8, 2)).astype(np.float32)
    return x, x.mean(axis=(1, 2, 3), keepdims=False)[:, None]


def network(momentum: float = 0.99, dropout: float = 0.0, **options: Any) -> Any:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            keras.layers.BatchNormalization(momentum=momentum, name="first", **options),
            keras.layers.Conv2D(5, 3, activation="relu"),
            keras.layers.Dropout(dropout),
            keras.layers.BatchNormalization(momentum=momentum, name="second", **options),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
    )
    model.compile("adam", "mse")
    return model


def state(model: Any) -> list[Any]:
    """Everything that a model keeps: weights, optimizer, seeds, metrics."""
    generators = [s.state for layer in model._flatten_layers() for s in getattr(layer, "_seed_generators", [])]
    variables = [*model.weights, *model.optimizer.variables, *generators, *model.metrics_variables]
    return [np.asarray(v).copy() for v in variables]


def unchanged(model: Any, before: list[Any]) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, state(model), strict=True))


def batched(x: Any, size: int = 32) -> Any:
    return tf.data.Dataset.from_tensor_slices(x).batch(size)


# --- what is computed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 48])  # 48 leaves a ragged last batch of 16
def test_pools_are_the_statistics_that_numpy_gives(size: int) -> None:
    x, _ = images()
    x += np.linspace(0, 5, len(x), dtype=np.float32)[:, None, None, None]  # batches differ
    model = network()
    first = model.get_layer("first")

    with recalibrate(model, batched(x, size), pool="samples"):
        np.testing.assert_allclose(first.moving_mean, x.mean((0, 1, 2)), rtol=1e-5)
        np.testing.assert_allclose(first.moving_variance, x.var((0, 1, 2)), rtol=1e-5)

    parts = [x[i : i + size] for i in range(0, len(x), size)]
    average = sum(len(p) * p.var((0, 1, 2)) for p in parts) / len(x)
    with recalibrate(model, batched(x, size)):
        np.testing.assert_allclose(first.moving_mean, x.mean((0, 1, 2)), rtol=1e-5)
        np.testing.assert_allclose(first.moving_variance, average, rtol=1e-5)
    assert np.all(average < x.var((0, 1, 2)) - 0.5)


def test_averaging_batches_is_what_the_moving_statistics_tend_to() -> None:
    x, _ = images()
    model = network(momentum=0.9, dropout=0.0)
    for _ in range(20):
        for start in range(0, len(x), 32):
            model(x[start : start + 32], training=True)
    chased = [np.asarray(v).copy() for v in model.non_trainable_variables]
    with recalibrate(model, batched(x)):
        for variable, value in zip(model.non_trainable_variables, chased, strict=True):
            np.testing.assert_allclose(variable, value, rtol=0.02, atol=0.01)


def test_inference_after_it_is_the_batch_mode_loss() -> None:
    x, y = images(320)
    model = network(momentum=0.999)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(x, y, batch_size=32, epochs=5, verbose=0)
    assert model.evaluate(x, y, verbose=0) > 100 * batch_mode_loss(model, x, y)
    recalibrate(model, x)
    fresh = model.evaluate(x, y, verbose=0)
    assert fresh == pytest.approx(batch_mode_loss(model, x, y), rel=0.1)


def batch_mode_loss(model: Any, x: Any, y: Any, size: int = 32) -> float:
    layers = find_layers(model)
    segments = Segments([t.channels for t in layers])
    probe = KerasRunner(backend(model), model, layers, segments)
    nothing = Moments(np.zeros(segments.sizes.sum()), np.zeros(segments.sizes.sum()))
    parts = [(tf.constant(x[i : i + size]), tf.constant(y[i : i + size])) for i in range(0, len(x), size)]
    return float(np.mean([probe.batch(p, nothing).loss for p in parts]))


def test_renorm_keeps_its_deviation_in_step() -> None:
    x, _ = images()
    model = network(renorm=True)
    recalibrate(model, batched(x))
    first = model.get_layer("first")
    np.testing.assert_allclose(np.square(first.moving_stddev) - first.epsilon, first.moving_variance, rtol=1e-5)
    np.testing.assert_allclose(first.moving_mean, x.mean((0, 1, 2)), rtol=1e-5)


def test_a_shared_layer_gets_the_statistics_of_both_calls() -> None:
    x, _ = images()
    inputs = keras.Input((8, 8, 2))
    shared = keras.layers.BatchNormalization(name="shared")
    model = keras.Model(inputs, keras.layers.Add()([shared(inputs), shared(inputs * 3.0 + 1.0)]))
    both = np.concatenate([x, x * 3 + 1])
    with recalibrate(model, batched(x), pool="samples"):
        np.testing.assert_allclose(shared.moving_mean, both.mean((0, 1, 2)), rtol=1e-4)
        np.testing.assert_allclose(shared.moving_variance, both.var((0, 1, 2)), rtol=1e-4)


# --- what is left alone ---------------------------------------------------------------------------------


def test_nothing_else_is_written_and_the_block_takes_it_back() -> None:
    x, y = images()
    model = network(dropout=0.5)
    model.fit(x, y, verbose=0)
    before = state(model)
    with recalibrate(model, x) as change:
        assert not unchanged(model, before)
        assert change.layers == ("first", "second") and change.skipped == {}
        assert (change.batches, change.samples) == (5, 160)
        moving = [v.path for v, b in zip(model.weights, before, strict=False) if not np.array_equal(v, b)]
        assert len(moving) == 4 and all("/moving_" in path for path in moving)
    assert unchanged(model, before)


def test_keep_and_undo() -> None:
    x, _ = images()
    model = network()
    before = state(model)
    with recalibrate(model, x) as change:
        change.keep()
    kept = state(model)
    assert not unchanged(model, before)
    change.undo()
    assert unchanged(model, before)
    change.undo()  # a second time does nothing
    recalibrate(model, x)
    assert unchanged(model, kept), "without a with block it stays, and is the same each time"


def test_undone_when_the_block_raises() -> None:
    x, _ = images()
    model = network()
    before = state(model)
    with pytest.raises(KeyError), recalibrate(model, x):
        raise KeyError
    assert unchanged(model, before)


def test_frozen_layers_keep_theirs_and_feed_the_rest() -> None:
    x, _ = images()
    model = network()
    first, second = model.get_layer("first"), model.get_layer("second")
    first.trainable = False
    middle = keras.Model(model.inputs, model.layers[1].output)
    change = recalibrate(model, batched(x))
    assert change.layers == ("second",) and change.skipped == {"first": "trainable=False"}
    np.testing.assert_array_equal(first.moving_mean, 0)
    after_first = middle.predict(x, verbose=0)  # on the moving statistics of ``first``
    np.testing.assert_allclose(second.moving_mean, after_first.mean((0, 1, 2)), rtol=1e-4)
    change.undo()
    assert recalibrate(model, batched(x), frozen=True).layers == ("first", "second")
    np.testing.assert_allclose(first.moving_mean, x.mean((0, 1, 2)), rtol=1e-5)


class CallsInInferenceMode(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.base = keras.layers.BatchNormalization(name="base")
        self.top = keras.layers.BatchNormalization(name="top")

    def call(self, x: Any, training: bool = False) -> Any:
        return self.top(self.base(x, training=False), training=training)


def test_layers_called_in_inference_mode_keep_theirs() -> None:
    x, _ = images()
    model = CallsInInferenceMode()
    model(x[:1])
    change = recalibrate(model, x)
    assert change.layers == ("top",) and change.skipped == {"base": "the model calls it in inference mode"}


# --- what may come in -----------------------------------------------------------------------------------


class Pieces(keras.utils.PyDataset):  # type: ignore[misc]
    def __init__(self, x: Any) -> None:
        super().__init__()
        self.x = x

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        return self.x[32 * index : 32 * index + 32], np.zeros(32)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: (x, np.zeros(len(x))),
        lambda x: batched(x),
        lambda x: batched((x, np.zeros(len(x)))),
        lambda x: batched(x).repeat(),
        lambda x: Pieces(x),
        lambda x: (x[i : i + 32] for i in range(0, len(x), 32)),
        lambda x: [(x[i : i + 32], None) for i in range(0, len(x), 32)],
        lambda x: [(x[i : i + 32], x[i : i + 32]) for i in range(0, len(x), 32)],
    ],
    ids=[
        "array",
        "arrays",
        "dataset",
        "dataset of pairs",
        "endless",
        "PyDataset",
        "generator",
        "list",
        "list of pairs",
    ],
)
def test_data(make: Callable[[Any], Any]) -> None:
    x, _ = images()
    model = network()
    change = recalibrate(model, make(x), batches=5)
    assert (change.batches, change.samples) == (5, 160)
    np.testing.assert_allclose(model.get_layer("first").moving_mean, x.mean((0, 1, 2)), rtol=1e-5)


def test_dict_inputs() -> None:
    x, _ = images()
    inputs = {"left": keras.Input((8, 8, 2), name="left"), "right": keras.Input((8, 8, 2), name="right")}
    layer = keras.layers.BatchNormalization()
    model = keras.Model(inputs, layer(inputs["left"] - inputs["right"]))
    recalibrate(model, {"left": x, "right": 3 * x})
    np.testing.assert_allclose(layer.moving_mean, -2 * x.mean((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "samples", "options", "sentence"),
    [
        (network, 160, {"batches": 0}, "batches is 0"),
        (network, 160, {"pool": "channels"}, "pool is 'channels'; expected one of"),
        (lambda: keras.Sequential([keras.Input((8, 8, 2)), keras.layers.Flatten()]), 160, {}, "has no BatchNorm"),
        (lambda: keras.Sequential([keras.layers.BatchNormalization()]), 160, {}, "is not built"),
        (lambda: "model", 160, {}, "model is a str"),
    ],
)
def test_refusals(make: Callable[[], Any], samples: int, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        recalibrate(make(), images(samples)[0], **options)


def test_no_data_at_all() -> None:
    with pytest.raises(ValueError, match="data gave no samples"):
        recalibrate(network(), iter([]))


def test_all_of_a_small_data_set() -> None:
    """Two images may be all there is; the report advises to recalibrate on them."""
    x, _ = images(2)
    model = network()
    with pytest.warns(UserWarning, match="data gave 2 samples in 1 batch to recalibrate on; 100 are few"):
        assert recalibrate(model, x).samples == 2
    assert not np.allclose(model.get_layer("first").moving_mean, 0.0)


def test_all_frozen() -> None:
    model = network()
    model.trainable = False
    with pytest.raises(ValueError, match="frozen=True"):
        recalibrate(model, images()[0])


def test_a_bad_batch_changes_nothing() -> None:
    x, _ = images()
    x[40, 0, 0, 0] = np.nan
    model = network()
    before = state(model)
    with pytest.raises(ValueError, match="Batch 1 of data gives layer 'first' statistics that are not finite in 1 of"):
        recalibrate(model, batched(x))
    assert unchanged(model, before)


@pytest.mark.parametrize(
    "form", [lambda x: x, batched, lambda x: [(b, b) for b in batched(x)]], ids=["array", "tf.data", "list"]
)
def test_bad_batches_are_left_out_where_that_is_asked(form: Callable[[Any], Any]) -> None:
    x, _ = images(320)
    x[0, 0, 0, 0] = np.nan
    model = network()
    with pytest.warns(UserWarning, match="1 of 10 batches of data gave statistics that are not finite: left out"):
        change = recalibrate(model, form(x), skip_non_finite=True)
    assert (change.batches, change.samples) == (9, 288)
    assert np.isfinite(model.get_layer("first").moving_mean).all()


def test_nothing_changes_where_every_batch_is_bad() -> None:
    x = np.full_like(images()[0], np.nan)
    model = network()
    before = state(model)
    with pytest.raises(ValueError, match="Each batch of data gives statistics that are not finite"):
        recalibrate(model, x, skip_non_finite=True)
    assert unchanged(model, before)


def test_poisoned_statistics_are_cured() -> None:
    x, _ = images()
    model = network()
    model.get_layer("second").moving_variance.assign(np.full(5, np.nan))
    recalibrate(model, x)
    assert np.all(np.isfinite(model.get_layer("second").moving_variance))


# --- momentum -------------------------------------------------------------------------------------------


def test_set_momentum_and_back() -> None:
    model = network(0.99)
    model.get_layer("second").momentum = 0.7
    old = set_momentum(model, 0.9)
    assert old == {"first": 0.99, "second": 0.7}
    assert [model.get_layer(n).momentum for n in old] == [0.9, 0.9]
    assert set_momentum(model, old) == {"first": 0.9, "second": 0.9}
    assert model.get_layer("second").momentum == 0.7


def test_set_momentum_says_when_a_compile_is_needed() -> None:
    x, y = images(32)
    model = network(0.99)
    model.fit(x, y, verbose=0)
    with pytest.warns(UserWarning, match="call model.compile"):
        set_momentum(model, 0.5)
    start = np.asarray(model.get_layer("first").moving_mean).copy()
    model.fit(x, y, verbose=0)
    moved = np.asarray(model.get_layer("first").moving_mean).copy() - start
    model.compile("adam", "mse")
    set_momentum(model, 0.5)  # nothing traced, nothing to say
    start = np.asarray(model.get_layer("first").moving_mean).copy()
    model.fit(x, y, verbose=0)
    moved_more = np.asarray(model.get_layer("first").moving_mean).copy() - start
    assert np.all(np.abs(moved_more) > 10 * np.abs(moved)), "the warning is true: the old step kept 0.99"


@pytest.mark.parametrize("value", [1.0, -0.1, float("nan"), "0.9", None, True, {"third": 0.9}])
def test_momentum_out_of_range(value: Any) -> None:
    with pytest.raises(ValueError, match=r"expected 0 <= momentum < 1|not a BatchNorm layer"):
        set_momentum(network(), value)


def test_the_momentum_of_pytorch_is_refused() -> None:
    model = network(0.99)
    with pytest.raises(ValueError, match=r"PyTorch's 0\.1 is 0\.9 here.*allow_low=True"):
        set_momentum(model, 0.1)
    assert model.get_layer("first").momentum == 0.99
    old = set_momentum(model, 0.1, allow_low=True)
    assert model.get_layer("first").momentum == 0.1
    set_momentum(model, set_momentum(model, old))  # what was read is accepted, however low
    assert model.get_layer("first").momentum == 0.1


# --- story 1 --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_story_one(tmp_path: Path) -> None:
    """Both remedies on the band locator: inference comes back to the batch-mode loss."""
    from demo.band_locator import batches, network, train

    data = batches(96, 16, seed=7)
    stale = train(str(tmp_path), momentum=0.999)
    x, y = (np.concatenate(parts) for parts in zip(*data.take(20).as_numpy_iterator(), strict=True))
    target = batch_mode_loss(stale, x, y, 16)
    assert stale.evaluate(x, y, verbose=0) > 100 * target
    with recalibrate(stale, batches(96, 16, seed=0), batches=200):
        recalibrated = stale.evaluate(x, y, verbose=0)
    assert recalibrated < 2 * target

    keras.utils.set_random_seed(0)
    model = network(96, 0.35, 0.999)
    set_momentum(model, 0.9)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.01, 1000, 0.9)), "mse")
    model.fit(batches(96, 16, 0), epochs=8, steps_per_epoch=50, shuffle=False, verbose=0)
    assert model.evaluate(x, y, verbose=0) < 3 * batch_mode_loss(model, x, y, 16)
