"""What happens around a fit: other callbacks, further fits, interruptions, saving and cloning."""

from __future__ import annotations

import contextlib
import gc
import math
import pickle
import signal
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_bnlens.frameworks.keras3.feed import PeekingTrainFunction
from tb_bnlens.frameworks.keras3.runner import KerasRunner
from tests.capture import models
from tests.capture.runs import assert_clean, assert_same, assert_unharmed, fit, lens, record, state
from tests.capture.setups import BATCH, DROPOUT, SAMPLES, SETUPS, Setup, arrays

# Keras' own saving, against NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


class AtStep(keras.callbacks.Callback):  # type: ignore[misc]
    """Does something once, after this many batches."""

    def __init__(self, step: int, action: Callable[[Any], object]) -> None:
        super().__init__()
        self.left, self.action = step, action

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if self.left == 0:
            self.action(self.model)


class Adds(keras.layers.Layer):  # type: ignore[misc]
    """Adds an input that may be None."""

    def call(self, x: Any, more: Any = None) -> Any:
        return x if more is None else x + more


def optional() -> Any:
    x, more = keras.Input((models.FEATURES,)), keras.Input((models.FEATURES,), optional=True)
    normalized = models.batch_norm("norm")(Adds()(x, more))
    return keras.Model([x, more], keras.layers.Dense(1)(normalized))


def without_more() -> Any:
    """Keras makes an empty ``tf.experimental.Optional`` of None."""
    batches = [arrays(BATCH, seed=seed) for seed in range(4)]
    return {"x": (((x, None), y) for _ in range(2) for x, y in batches), "steps_per_epoch": 4}


def test_optional_inputs(tmp_path: Path) -> None:
    setup = Setup("optional", optional, without_more)
    without = state(fit(setup))
    model = fit(setup, lens(tmp_path))
    assert_clean(model)
    assert_same(without, state(model))
    read = record(tmp_path)
    assert not read.manifest.not_evaluated and np.all(np.isfinite(read.loss("inference")))


def recompile(model: Any) -> None:
    model.compile(keras.optimizers.SGD(0.02), "mae", jit_compile=False)
    model.make_train_function()


def save_and_load(path: Path) -> Callable[[Any], object]:
    def action(model: Any) -> None:
        path.mkdir(exist_ok=True)
        model.save(path / "model.keras")
        loaded = keras.models.load_model(path / "model.keras")
        x, _ = arrays(BATCH)
        assert np.array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))

    return action


def stop(model: Any) -> None:
    model.stop_training = True


def poison(model: Any) -> None:
    model.get_layer("dense").bias.assign(np.full(5, np.nan))


COMPANY: dict[str, Callable[[Path], Any]] = {
    "early stopping": lambda _: keras.callbacks.EarlyStopping(
        "loss", patience=0, restore_best_weights=True, min_delta=9
    ),
    "backup": lambda path: keras.callbacks.BackupAndRestore(path / "backup", save_freq=3),
    "onlookers": lambda path: [
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.ModelCheckpoint(path / "saved.keras", save_freq=3),
        keras.callbacks.TensorBoard(path / "run", update_freq=1, histogram_freq=1),
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 / (1 + epoch)),
        AtStep(2, lambda model: model.evaluate(*arrays(16), verbose=0)),
        AtStep(3, save_and_load(path)),
        AtStep(4, keras.models.clone_model),
        AtStep(5, lambda model: pickle.loads(pickle.dumps(model))),
    ],
    "training in between": lambda _: AtStep(3, lambda model: model.train_on_batch(*arrays(BATCH))),
    "recompile": lambda _: AtStep(3, recompile),
    "stop": lambda _: AtStep(5, stop),
    "poison": lambda _: AtStep(3, poison),
    "swap": lambda _: keras.callbacks.SwapEMAWeights(),
}


def company(name: str, directory: Path) -> list[Any]:
    made = COMPANY[name](directory)
    return made if isinstance(made, list) else [made]


def company_setup(name: str) -> Setup:
    averaged = {"optimizer": lambda: keras.optimizers.SGD(0.01, use_ema=True)} if name == "swap" else {}
    return Setup(name, DROPOUT.model, compile=averaged)


@pytest.mark.parametrize("name", COMPANY)
def test_in_company(name: str, tmp_path: Path) -> None:
    setup = company_setup(name)
    without = state(fit(setup, *company(name, tmp_path / "without")))
    for first in (False, True) if name in ("recompile", "swap", "stop") else (False,):
        others, ours = company(name, tmp_path / str(first)), lens(tmp_path / str(first))
        model = fit(setup, *((ours, *others) if first else (*others, ours)))
        ended = state(model)
        assert_clean(model)
        assert_same(without, ended)
        read = record(tmp_path / str(first))
        assert not read.problems and len(read.steps) and len(read.loss_steps)
        if name == "recompile":
            assert "recompile" in [event.kind for event in read.manifest.events]


def test_two_fits_are_one_record(tmp_path: Path) -> None:
    def twice(*callbacks: Any) -> dict[str, Any]:
        model = fit(DROPOUT, *callbacks)
        model.train_on_batch(*arrays(BATCH))
        return state(fit(DROPOUT, *callbacks, model=model))

    assert_same(twice(), twice(lens(tmp_path)))
    read = record(tmp_path)
    assert [event.kind for event in read.manifest.events] == ["start", "fit"]
    assert read.last_step == 17 and not read.problems
    assert np.all(np.diff(read.steps) > 0) and read.steps[0] <= 1


def test_two_lenses(tmp_path: Path) -> None:
    model = fit(DROPOUT, lens(tmp_path / "a"), lens(tmp_path / "b"))
    assert_unharmed(model)
    a, b = record(tmp_path / "a"), record(tmp_path / "b")
    assert np.array_equal(a.steps, b.steps) and np.array_equal(a.loss("batch"), b.loss("batch"))
    assert np.all(np.isfinite(a.loss("inference")))


def test_interrupted(tmp_path: Path) -> None:
    """The model trains on by steps and by fits, and so does what is saved of it."""

    def run(error: type[BaseException], *callbacks: Any) -> Any:
        def interrupt(_: Any) -> None:
            raise error

        model = DROPOUT.make()
        with pytest.raises(error):
            fit(DROPOUT, *callbacks, AtStep(5, interrupt), model=model)
        model.train_on_batch(*arrays(BATCH))
        model.save(tmp_path / "interrupted.keras")
        loaded = keras.models.load_model(tmp_path / "interrupted.keras")
        loaded.train_on_batch(*arrays(BATCH))
        fit(DROPOUT, model=model)
        return model, loaded

    without = [state(model) for model in run(KeyboardInterrupt)]
    for error in (KeyboardInterrupt, ValueError):
        for expected, model in zip(without, run(error, lens(tmp_path / error.__name__)), strict=True):
            assert_clean(model)
            assert_same(expected, state(model))
        read = record(tmp_path / error.__name__)
        assert not read.problems and read.last_step in (4, 5), "what was written before the interruption can be read"
        assert (read.manifest.ended, read.manifest.ended_step) == ("interrupted", 5)


def test_a_backup_is_restored_after_a_crash(tmp_path: Path) -> None:
    """Keras takes up the run at the last epoch that it saved, and the record goes back there with it."""

    def crash(_: Any) -> None:
        raise ValueError

    def run(directory: Path, with_lens: bool) -> dict[str, Any]:
        def callbacks() -> list[Any]:
            backup = keras.callbacks.BackupAndRestore(directory / "backup")
            return [backup, lens(directory)] if with_lens else [backup]

        with pytest.raises(ValueError):
            fit(DROPOUT, *callbacks(), AtStep(6, crash))
        return state(fit(DROPOUT, *callbacks(), model=DROPOUT.make()))

    assert_same(run(tmp_path / "without", False), run(tmp_path / "with", True))
    read = record(tmp_path / "with")
    assert [event.kind for event in read.manifest.events] == ["start", "restart"]
    assert read.manifest.events[1].step == 4 and read.last_step == 8
    assert np.all(np.diff(read.steps) > 0)
    assert any("went back to an earlier step" in problem for problem in read.problems)


def test_an_interrupted_lens_records_the_next_fit(tmp_path: Path) -> None:
    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    ours = lens(tmp_path)
    model = DROPOUT.make()
    with pytest.raises(KeyboardInterrupt):
        fit(DROPOUT, ours, AtStep(5, interrupt), model=model)
    fit(DROPOUT, ours, model=model)
    assert_clean(model)
    read = record(tmp_path)
    assert read.last_step == 13 and np.all(np.diff(read.steps) > 0)


def test_the_copy_of_a_model_in_training_has_no_lens(tmp_path: Path) -> None:
    copies: list[Any] = []

    def copy(model: Any) -> None:
        assert isinstance(model.train_function, PeekingTrainFunction)
        copies.append(keras.models.clone_model(model))
        copies.append(pickle.loads(pickle.dumps(model)))

    fit(DROPOUT, lens(tmp_path), AtStep(3, copy))
    for model in copies:
        assert_clean(model)


def test_default_density_is_harmless_too(tmp_path: Path) -> None:
    model = fit(DROPOUT, lens(tmp_path, overhead=0.01), epochs=6)
    assert_unharmed(model, 6)
    assert math.isfinite(record(tmp_path).loss("inference")[-1])


QUICK = ("dropout", "tf_function_call", "tf_function_inside")
OTHERS = "subclassed nested renorm rnn_cell time_distributed jit_compile mixed_float16 add_loss keras_state".split()


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_evaluate_and_predict_see_no_trace(name: str, tmp_path: Path) -> None:
    """Functions that Keras compiles after the probe's passes must not hold anything of them."""
    setup = next(s for s in SETUPS if s.name == name)
    results = []
    for callbacks in ((), (lens(tmp_path),)):
        model = fit(setup, *callbacks)
        for variable in model.non_trainable_variables:
            if "moving_mean" in variable.path:
                variable.assign(variable + 1.0)
        data = setup.data()
        results.append((model.evaluate(data["x"], data["y"], verbose=0), model.predict(data["x"], verbose=0).tolist()))
    assert results[0] == results[1]


ONE_REPLICA: dict[str, Callable[[], Any]] = {
    "mirrored": lambda: tf.distribute.MirroredStrategy(["CPU:0"]),
    "one device": lambda: tf.distribute.OneDeviceStrategy("CPU:0"),
}


@pytest.mark.parametrize("name", ONE_REPLICA)
@pytest.mark.parametrize(("within", "executions", "endless"), [(False, 1, False), (True, 3, False), (True, 1, True)])
def test_strategies_with_one_replica(name: str, within: bool, executions: int, endless: bool, tmp_path: Path) -> None:
    """The usual code on a machine with one GPU."""

    def trained(*callbacks: Any) -> dict[str, Any]:
        data = tf.data.Dataset.from_tensor_slices(arrays(SAMPLES)).batch(BATCH)
        strategy = ONE_REPLICA[name]()
        keras.backend.clear_session()
        keras.utils.set_random_seed(1)
        with strategy.scope():
            model = DROPOUT.model()
            model.compile(keras.optimizers.Adam(0.01), "mse", steps_per_execution=executions)
        with strategy.scope() if within else contextlib.nullcontext():
            given = {"x": data.repeat(), "steps_per_epoch": 6} if endless else {"x": data}
            model.fit(**given, epochs=2, shuffle=False, verbose=0, callbacks=list(callbacks))
        return state(model)

    assert_same(trained(), trained(lens(tmp_path)))
    found = record(tmp_path)
    assert len(found.loss("inference")) and np.all(np.isfinite(found.loss("inference")))
    assert not found.manifest.not_evaluated


def test_a_batch_that_is_not_seen_has_a_reason(tmp_path: Path) -> None:
    model = DROPOUT.model()

    class Wraps(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.model.make_train_function(force=True)
            made = self.model.train_function
            self.model.train_function = lambda data: made(data)

    model.compile("sgd", "mse", steps_per_execution=2)
    model.fit(*arrays(SAMPLES), batch_size=BATCH, verbose=0, callbacks=[Wraps(), lens(tmp_path)])
    assert "train_function is not Keras' own" in record(tmp_path).manifest.not_evaluated["losses"]


@pytest.mark.parametrize("where", ["call", "callback"])
def test_a_fit_that_raises_leaves_nothing(where: str, tmp_path: Path) -> None:
    class Fails(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.out = models.batch_norm("norm"), keras.layers.Dense(1)

        def call(self, x: Any, training: bool = False) -> Any:
            if where == "call":
                raise ValueError("shape")
            return self.out(self.norm(x, training=training))

    def stop(_: Any) -> None:
        raise ValueError("stop")

    model = Fails()
    model.compile("sgd", "mse")
    with contextlib.suppress(ValueError):
        model.fit(*arrays(SAMPLES), batch_size=BATCH, verbose=0, callbacks=[AtStep(2, stop), lens(tmp_path)])
    assert not isinstance(model.train_function, PeekingTrainFunction)
    held = weakref.ref(model)
    del model
    gc.collect()
    assert held() is None


def test_handlers_of_signals_see_no_pass(tmp_path: Path, monkeypatch: Any) -> None:
    model, seen, came = DROPOUT.make(), [], []
    forward = KerasRunner._forward

    def signalled(*args: Any, **kwargs: Any) -> Any:
        came.append(1)
        signal.raise_signal(signal.SIGUSR1)
        return forward(*args, **kwargs)

    def handler(*_: Any) -> None:
        seen.append(any("call" in vars(layer) for layer in model._flatten_layers()))

    monkeypatch.setattr(KerasRunner, "_forward", signalled)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        fit(DROPOUT, lens(tmp_path), model=model)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert came and seen and not any(seen)
