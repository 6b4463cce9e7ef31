"""Keras 3 on JAX and PyTorch, and Keras 2: training is the same to the bit with the lens, and the record is true."""

from __future__ import annotations

import math
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tb_bnlens
from tb_bnlens.history import History
from tb_bnlens.reader import list_runs, open_logdir, read_run

BACKEND = os.environ.get("KERAS_BACKEND", "tf_keras")
PACKAGES = ("tensorflow", "tf_keras") if BACKEND == "tf_keras" else (BACKEND, "keras")
SAMPLES, BATCH, EPOCHS = 44, 8, 3
STEPS = EPOCHS * math.ceil(SAMPLES / BATCH)
RNG = np.random.default_rng(0)
X = RNG.normal(3.0, 2.0, (SAMPLES, 5)).astype("float32")
Y = X[:, :1] - 0.5 * X[:, 1:2]


def network(keras: Any, *extra: Any, shared: bool = False, frozen: bool = False, drop: float = 0.3) -> Any:
    """A small compiled network with two calls of BatchNorm and dropout, always the same."""
    keras.utils.set_random_seed(1)
    random.seed(1)
    inputs = keras.Input((5,))
    first = keras.layers.BatchNormalization(momentum=0.9, name="first")
    second = first if shared else keras.layers.BatchNormalization(momentum=0.99, name="second", trainable=not frozen)
    x = first(keras.layers.Dense(6, kernel_regularizer="l2")(inputs))
    for layer in (keras.layers.Dropout(drop), *extra, keras.layers.Dense(6), second):
        x = layer(x)
    return compiled(keras, keras.Model(inputs, keras.layers.Dense(1)(x)))


# A pass over a model of Keras 2 draws other numbers than the step, so its dropout is not that of the step.
REPEATED = 0.0 if BACKEND == "tf_keras" else 0.3


def compiled(keras: Any, model: Any, **options: Any) -> Any:
    model.compile(keras.optimizers.Adam(0.01), loss="mse", metrics=["mae"], **options)
    return model


def subclassed(keras: Any) -> Any:
    class Late(keras.Model):  # type: ignore[misc]
        """Built by its first batch."""

        def __init__(self) -> None:
            super().__init__()
            self.inner, self.norm = keras.layers.Dense(6), keras.layers.BatchNormalization(momentum=0.9)
            self.drop, self.out = keras.layers.Dropout(0.3), keras.layers.Dense(1)

        def call(self, x: Any, training: bool = False) -> Any:
            x = self.norm(self.inner(x), training=training)
            return self.out(self.drop(x, training=training))

    keras.utils.set_random_seed(1)
    return compiled(keras, Late())


MAKERS: dict[str, Callable[[Any], Any]] = {
    "functional": network,
    "shared": lambda keras: network(keras, shared=True),
    "frozen": lambda keras: network(keras, frozen=True),
    "built late": subclassed,
    "eager": lambda keras: compiled(keras, network(keras), run_eagerly=True),
    "averaged weights": lambda keras: averaged(keras),
}
if BACKEND != "torch":  # where Keras refuses it
    MAKERS["several steps at once"] = lambda keras: compiled(keras, network(keras), steps_per_execution=4)


def averaged(keras: Any) -> Any:
    model = network(keras)
    model.compile(keras.optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=5), loss="mse")
    return model


def fitted(model: Any, *callbacks: Any, **options: Any) -> tuple[list[Any], dict[str, Any]]:
    """All that training writes, and the history."""
    given = {"x": X, "y": Y, "batch_size": BATCH, "epochs": EPOCHS, "validation_data": (X, Y), **options}
    history = model.fit(**given, verbose=0, callbacks=list(callbacks))
    return state(model), history.history


def state(model: Any) -> list[Any]:
    optimizer = model.optimizer.variables
    # In Keras 2 the metrics are among the model's own.
    variables = [*model.variables, *(optimizer() if callable(optimizer) else optimizer)]
    variables += getattr(model, "metrics_variables", ())
    convert = np.asarray if BACKEND == "tf_keras" else sys.modules["keras"].ops.convert_to_numpy
    return [np.array(convert(v)) for v in variables]


def assert_identical(left: list[Any], right: list[Any]) -> None:
    assert len(left) == len(right) > 10
    for a, b in zip(left, right, strict=True):
        assert a.tobytes() == b.tobytes()


def lens(directory: Path, **options: Any) -> tb_bnlens.BNLens:
    return tb_bnlens.BNLens(str(directory), **{"overhead": math.inf, "on_error": "raise", "verbose": 0, **options})


def record(directory: Path) -> History:
    data = open_logdir(directory)
    (run,) = list_runs(data)
    history = read_run(data, "", run)
    assert not history.problems
    return history


def rows_metric(keras: Any) -> Any:
    class Rows(keras.metrics.Metric):  # type: ignore[misc]
        """Holds the rows of an epoch in Python, as metrics around scikit-learn do."""

        def __init__(self, name: str = "rows", **options: Any) -> None:
            super().__init__(name=name, **options)
            self.rows: list[Any] = []
            self.cleared: list[int] = []

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            self.rows.append(y_pred)

        def result(self) -> float:
            return float(len(self.rows))

        def reset_state(self) -> None:
            self.cleared.append(len(self.rows))
            self.rows.clear()

    return Rows()


def test_a_metric_that_holds_rows_in_python(keras: Any, tmp_path: Path) -> None:
    def trained(*callbacks: Any) -> Any:
        model, rows = network(keras), rows_metric(keras)
        model.compile(keras.optimizers.Adam(0.01), "mse", metrics=[rows], run_eagerly=True)
        shown = fitted(model, keras.callbacks.ReduceLROnPlateau("rows", mode="max", patience=1), *callbacks)
        return *shown, rows.cleared, len(rows.rows)

    plain, watched = trained(), trained(lens(tmp_path))
    assert_identical(plain[0], watched[0])
    assert str(plain[1:]) == str(watched[1:])
    found = record(tmp_path)
    assert np.all(np.isfinite(found.loss("inference")))
    assert "metrics" in found.evidence[-1].not_evaluated
    assert "rows" not in found.evidence[-1].passes["inference"].metrics


def test_a_schedule_that_counts(keras: Any, tmp_path: Path) -> None:
    class Counts(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
        calls = 0

        def __call__(self, step: Any) -> float:
            self.calls += 1
            return 0.1 / self.calls

        def get_config(self) -> dict[str, Any]:
            return {}

    def trained(*callbacks: Any) -> Any:
        model, schedule = network(keras), Counts()
        model.compile(keras.optimizers.Adam(schedule), "mse", run_eagerly=True)
        return fitted(model, *callbacks), schedule.calls

    (plain, _), calls = trained()
    (watched, _), with_lens = trained(lens(tmp_path))
    assert_identical(plain, watched)
    assert calls == with_lens


@pytest.mark.parametrize("name", MAKERS)
def test_training_is_the_same_to_the_bit(keras: Any, name: str, tmp_path: Path) -> None:
    plain, shown = fitted(MAKERS[name](keras))
    model = MAKERS[name](keras)
    watched, watched_shown = fitted(model, lens(tmp_path))
    assert_identical(plain, watched)
    assert shown == watched_shown
    assert "bn_lens" not in type(model.train_function).__module__
    assert not [layer for layer in model._flatten_layers() if "call" in vars(layer)]
    history = record(tmp_path)
    assert history.last_step == STEPS and history.manifest.ended == "planned"
    assert history.manifest.not_evaluated == {}
    assert {"inference", "batch", "recalibrated", "training"} <= set(history.evidence[-1].passes)
    assert not [e for e in history.manifest.events if e.kind in ("outside", "recompile")]


def test_what_is_recorded_is_true(keras: Any, tmp_path: Path) -> None:
    """The step goes where the training pass of its batch says, and the losses are those of ``evaluate``."""
    model = network(keras, drop=REPEATED)
    fitted(model, lens(tmp_path))
    history = record(tmp_path)
    np.testing.assert_allclose(history.last("momentum_effective"), [0.9, 0.99], rtol=1e-3)
    assert history.last("updates").tolist() == [STEPS, STEPS]
    assert [layer.calls for layer in history.manifest.layers] == [1, 1]
    assert (history.loss("target_entropy") == -1).all(), "the targets are real numbers"
    validation = history.evidence[-1].validation["inference"]
    seen = int(validation.sizes.sum())
    np.testing.assert_allclose(validation.mean, model.evaluate(X[:seen], Y[:seen], verbose=0)[0], rtol=1e-4)
    assert set(history.manifest.versions) == {*PACKAGES, "tensorboard-plugin-bnlens"}


def test_a_shared_layer_is_counted(keras: Any, tmp_path: Path) -> None:
    fitted(network(keras, shared=True, drop=REPEATED), lens(tmp_path))
    history = record(tmp_path)
    assert history.last("updates").tolist() == [2 * STEPS]
    np.testing.assert_allclose(history.last("momentum_effective"), [0.9], rtol=1e-3)


def test_random_numbers_of_python_are_not_drawn(keras: Any, tmp_path: Path) -> None:
    class Jitter(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x * random.uniform(0.9, 1.1)

    def run(*callbacks: Any) -> tuple[list[Any], float]:
        made = network(keras, Jitter())
        random.seed(2)
        return fitted(made, *callbacks)[0], random.random()

    (plain, after), (watched, watched_after) = run(), run(lens(tmp_path))
    assert_identical(plain, watched)
    assert after == watched_after
    assert "draws random numbers" in record(tmp_path).manifest.not_evaluated["losses"]


def layer_that_counts(keras: Any) -> Any:
    """In an attribute, in a dictionary and in its class."""

    class Counts(keras.layers.Layer):  # type: ignore[misc]
        calls = 0

        def __init__(self) -> None:
            super().__init__()
            self.count, self.held = 0, {"calls": 0}

        def call(self, x: Any) -> Any:
            Counts.calls += 1
            self.count += 1
            self.held["calls"] += 1
            return x * (1 + 0.01 * (Counts.calls + self.count + self.held["calls"]))

    return Counts()


def loss_that_counts(keras: Any) -> Any:
    class Counts(keras.losses.Loss):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.means: list[float] = []

        def call(self, y: Any, p: Any) -> Any:
            self.means.append(0.1)
            return (p - y) ** 2 * (1 + sum(self.means))

    return Counts()


@pytest.mark.parametrize("eagerly", [True, False])
def test_what_python_objects_hold_is_put_back(keras: Any, eagerly: bool, tmp_path: Path) -> None:
    """A layer and a loss that count their calls, where the step is traced too: a trace is a call."""

    def run(*callbacks: Any) -> tuple[list[Any], str]:
        layer, loss = layer_that_counts(keras), loss_that_counts(keras)
        model = network(keras, layer)
        model.compile(keras.optimizers.Adam(0.01), loss=loss, run_eagerly=eagerly)
        kept = fitted(model, *callbacks, validation_data=None, epochs=1)[0]
        return kept, str((layer.count, dict(layer.held), type(layer).calls, loss.means))

    (plain, counted), (watched, watched_counted) = run(), run(lens(tmp_path))
    assert_identical(plain, watched)
    assert counted == watched_counted
    assert {"inference", "batch"} <= set(record(tmp_path).evidence[-1].passes)


@pytest.mark.skipif(BACKEND != "torch", reason="tensors that can be written")
def test_what_a_layer_writes_is_undone(keras: Any, tmp_path: Path) -> None:
    import torch

    class Centers(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.centers, self.generator = torch.zeros(6), torch.Generator().manual_seed(1)

        def call(self, x: Any) -> Any:
            self.centers.lerp_(x.detach().mean(0), 0.1)
            return x - self.centers + torch.rand((), generator=self.generator)

    def run(*callbacks: Any) -> list[Any]:
        layer = Centers()
        kept = fitted(network(keras, layer), *callbacks)[0]
        return [*kept, layer.centers.numpy(), layer.generator.get_state().numpy()]

    assert_identical(run(), run(lens(tmp_path)))
    assert {"inference", "batch"} <= set(record(tmp_path).evidence[-1].passes)


@pytest.mark.skipif(BACKEND != "torch", reason="loaders of PyTorch")
def test_a_loader_for_validation_is_not_read_and_not_warned_of(keras: Any, tmp_path: Path) -> None:
    import torch

    rows = torch.utils.data.TensorDataset(torch.tensor(X[:BATCH]), torch.tensor(Y[:BATCH]))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "BN Lens")
        fitted(network(keras), lens(tmp_path), validation_data=torch.utils.data.DataLoader(rows, BATCH), epochs=1)
    assert any("reading a DataLoader" in note for note in record(tmp_path).manifest.notes)


@pytest.mark.skipif(BACKEND != "torch", reason="modules of PyTorch")
def test_modules_that_keep_state_are_not_run(keras: Any, tmp_path: Path) -> None:
    import torch

    class Foreign(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.foreign = torch.nn.BatchNorm1d(6)

        def call(self, x: Any) -> Any:
            return self.foreign(x)

    def run(*callbacks: Any) -> tuple[list[Any], Any]:
        model = network(keras, Foreign())
        held = [m for layer in model._flatten_layers() for m in layer.modules()]
        return fitted(model, *callbacks)[0], next(m for m in held if isinstance(m, torch.nn.BatchNorm1d))

    (plain, module), (watched, watched_module) = run(), run(lens(tmp_path))
    assert_identical(plain, watched)
    assert torch.equal(module.running_mean, watched_module.running_mean)
    assert "holds a BatchNorm1d of PyTorch with buffers" in record(tmp_path).manifest.not_evaluated["losses"]


def test_a_fault_does_not_end_fit(keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tb_bnlens.capture.recording import Recording

    def fails(*_: Any, **__: Any) -> None:
        raise OSError("no such thing")

    plain, _ = fitted(network(keras))
    monkeypatch.setattr(Recording, "before", fails)
    with pytest.warns(UserWarning, match="OSError: no such thing. Training continues unchanged"):
        watched, _ = fitted(network(keras), lens(tmp_path, on_error="warn"))
    assert_identical(plain, watched)


def test_a_fit_after_one_that_another_callback_has_ended(keras: Any, tmp_path: Path) -> None:
    """Keras calls no hook then: the wrapper meets the steps of the next fit, which no lens watches."""

    class Ends(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 3:
                raise ValueError("mine")

    def run(*callbacks: Any) -> list[Any]:
        model = network(keras)
        with pytest.raises(ValueError, match="mine"):
            fitted(model, *callbacks, Ends())
        return fitted(model, epochs=1)[0]

    assert_identical(run(), run(lens(tmp_path)))
    assert record(tmp_path).manifest.ended == "interrupted"


def test_data_that_a_look_would_disturb_is_refused(keras: Any, tmp_path: Path) -> None:
    def batches() -> Iterator[Any]:
        while True:
            yield X[:BATCH], Y[:BATCH]

    with pytest.warns(UserWarning, match="gives each batch once.*pass arrays"):
        fitted(network(keras), lens(tmp_path, probe_data=batches()), epochs=1)


def test_a_loop_of_ones_own(keras: Any, tmp_path: Path) -> None:
    def loop(recorded: bool) -> list[Any]:
        model = network(keras)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            recorder = (
                tb_bnlens.Recorder(model, str(tmp_path), overhead=math.inf, on_error="raise") if recorded else None
            )
            for start in range(0, 40, BATCH):
                x, y = X[start : start + BATCH], Y[start : start + BATCH]
                model.train_on_batch(x, y)
                if recorder:
                    recorder.record(x, y)
            if recorder:
                recorder.close()
        return state(model)

    assert_identical(loop(False), loop(True))
    history = record(tmp_path)
    assert history.last_step == 5 and history.evidence[-1].moment == "end"
    assert np.nanmin(history.last("distance_rms")) > 0


@pytest.fixture(scope="module")
def trained(keras: Any) -> Any:
    """Far enough for the loss with batch statistics to be small, and not for the moving statistics."""
    model = network(keras)
    tb_bnlens.set_momentum(model, 0.999)
    fitted(model, epochs=12)
    return model


def test_check(keras: Any, trained: Any, tmp_path: Path) -> None:
    before = state(trained)
    found = tb_bnlens.check(trained, (X, Y), str(tmp_path), quiet=True)
    assert_identical(before, state(trained))
    inference = found.report["losses"]["inference"]
    assert inference == pytest.approx(trained.evaluate(X, Y, verbose=0)[0], rel=0.2)
    assert found.severity == "error" and "momentum-too-high" in [finding["rule"] for finding in found.findings]
    assert record(tmp_path).evidence[-1].moment == "check"


def test_recalibrate(keras: Any, trained: Any) -> None:
    x = np.tile(X, (3, 1))
    before = state(trained)
    stale = trained.evaluate(X, Y, verbose=0)[0]
    with tb_bnlens.recalibrate(trained, x, batch_size=44) as change:
        assert change.layers == ("first", "second") and change.samples == 132
        kernel, bias = trained.layers[1].get_weights()
        seen = x @ kernel + bias
        mean, variance = trained.get_layer("first").get_weights()[2:]
        np.testing.assert_allclose(mean, seen.mean(0), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(variance, seen.var(0), rtol=0.1)
        assert trained.evaluate(X, Y, verbose=0)[0] < stale
    weights = len(trained.variables)
    assert_identical(before[:weights], state(trained)[:weights])


def test_set_momentum(keras: Any) -> None:
    model = network(keras)
    assert tb_bnlens.set_momentum(model, 0.5) == {"first": 0.9, "second": 0.99}
    compiled(keras, model)
    kernel, bias = model.layers[1].get_weights()
    model.train_on_batch(X[:8], Y[:8])
    expected = 0.5 * (X[:8] @ kernel + bias).mean(axis=0)
    np.testing.assert_allclose(model.get_layer("first").get_weights()[2], expected, rtol=1e-4, atol=1e-5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        tb_bnlens.set_momentum(model, 0.6)
    # On torch the step is plain Python, which reads the momentum each time.
    asked = [w for w in caught if "call model.compile(...) again" in str(w.message)]
    assert len(asked) == (BACKEND != "torch")


@pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution runs on JAX")
def test_data_parallel_over_several_devices(keras: Any, tmp_path: Path) -> None:
    """The statistics are those of the whole batch, whatever the devices; XLA_FLAGS makes four of one CPU."""
    import jax

    assert len(jax.devices()) == 4
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    try:
        options = {"x": X[:40], "y": Y[:40], "validation_data": None}
        plain, shown = fitted(network(keras), **options)
        model = network(keras)
        watched, watched_shown = fitted(model, lens(tmp_path), **options)
        assert len(model.trainable_variables[0].value.sharding.device_set) == 4
        assert_identical(plain, watched)
        assert shown == watched_shown
        with tb_bnlens.recalibrate(model, np.tile(X[:40], (3, 1)), batch_size=40) as change:
            assert change.batches == 3
    finally:
        keras.distribution.set_distribution(None)
    history = record(tmp_path)
    np.testing.assert_allclose(history.last("momentum_effective"), [0.9, 0.99], rtol=1e-3)
    assert history.evidence[-1].batch_sizes.tolist() == [BATCH] * len(history.evidence[-1].batch_sizes)


def test_no_other_backend_is_loaded() -> None:
    """What else is installed may take seconds to import. Keras itself loads some of it."""
    if BACKEND == "tf_keras":
        assert "keras" not in sys.modules
        return
    backends = ("tb_bnlens.frameworks.keras_", "tb_bnlens.frameworks.keras2")
    loaded = [name for name in sys.modules if name.startswith(backends)]
    assert loaded == [f"tb_bnlens.frameworks.keras_{BACKEND}"]
    assert "tb_bnlens.summary" not in sys.modules
