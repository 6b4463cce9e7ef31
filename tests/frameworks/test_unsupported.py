"""Where a framework is not supported yet: one sentence says so, and training continues as if BN Lens were not there."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tb_bnlens

STEPS = 4


def data() -> tuple[Any, Any]:
    x = np.random.default_rng(0).normal(3.0, 2.0, (STEPS * 8, 5)).astype("float32")
    return x, x.sum(axis=1, keepdims=True)


def built_model(keras: Any) -> Any:
    """A small compiled network with two BatchNorm layers and dropout, always the same."""
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Dense(6),
        keras.layers.BatchNormalization(momentum=0.9, name="first"),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(6),
        keras.layers.BatchNormalization(momentum=0.9, name="second"),
        keras.layers.Dense(1),
    ]
    model = keras.Sequential(layers)
    model.build((None, 5))
    model.compile(keras.optimizers.Adam(0.01), loss="mse")
    return model


def fitted(keras: Any, callbacks: list[Any]) -> tuple[Any, dict[str, Any]]:
    model = built_model(keras)
    x, y = data()
    history = model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
    return model, history.history


@pytest.fixture(scope="module")
def plain(keras: Any) -> tuple[list[Any], dict[str, Any]]:
    """State and history after a training without BN Lens."""
    model, history = fitted(keras, [])
    return state(model), history


def state(model: Any) -> list[Any]:
    """All that training writes, the optimizer included."""
    variables = model.optimizer.variables
    optimizer = variables() if callable(variables) else variables
    return [*model.get_weights(), *(v.numpy() for v in optimizer)]


def assert_identical(left: list[Any], right: list[Any]) -> None:
    assert len(left) == len(right) > 10
    for a, b in zip(left, right, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def sentence_of(call: Callable[[], object]) -> tuple[Any, str]:
    """What a call returns, and the one warning of BN Lens that it gave."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    said = [str(w.message) for w in caught if "BN Lens" in str(w.message)]
    assert len(said) == 1, said
    return result, said[0]


def assert_tells_what_to_do(sentence: str) -> None:
    assert "only Keras 3 on TensorFlow, JAX or PyTorch is supported" in sentence
    assert "this is Keras 2 (tf_keras); build the model with Keras 3" in sentence
    assert sentence.count(".") == 1
    assert sentence.endswith(".")


def test_this_is_the_environment_that_was_meant(keras: Any) -> None:
    assert keras.__name__ == "tf_keras"


def test_fit_is_unharmed_and_one_sentence_says_why_nothing_is_recorded(keras: Any, plain: Any, tmp_path: Path) -> None:
    (watched, history), sentence = sentence_of(lambda: fitted(keras, [tb_bnlens.BNLens(str(tmp_path))]))
    assert_identical(plain[0], state(watched))
    assert plain[1] == history
    assert_tells_what_to_do(sentence)
    assert "nothing" in sentence
    assert list(tmp_path.rglob("*")) == []


def test_the_model_works_afterwards(keras: Any, tmp_path: Path) -> None:
    lens = tb_bnlens.BNLens(str(tmp_path))
    (model, _), _ = sentence_of(lambda: fitted(keras, [lens]))
    x, y = data()
    weights = model.get_weights()
    assert np.isfinite(model.evaluate(x, y, verbose=0, callbacks=[lens]))
    assert model.predict(x, verbose=0, callbacks=[lens]).shape == (len(x), 1)
    assert_identical(weights * 2, model.get_weights() * 2)
    sentence_of(lambda: model.fit(x, y, verbose=0, callbacks=[lens]))
    assert "bn_lens" not in type(model.train_function).__module__


def test_validation_and_several_steps_an_execution(keras: Any, tmp_path: Path) -> None:
    def run(callbacks: list[Any]) -> tuple[Any, dict[str, Any]]:
        model = built_model(keras)
        model.compile(keras.optimizers.SGD(0.01), loss="mse", steps_per_execution=2)
        x, y = data()
        done = model.fit(x, y, batch_size=8, epochs=2, verbose=0, validation_data=(x, y), callbacks=callbacks)
        return model, done.history

    plain, history = run([])
    (watched, watched_history), _ = sentence_of(lambda: run([tb_bnlens.BNLens(str(tmp_path))]))
    assert_identical(plain.get_weights(), watched.get_weights())
    assert history == watched_history


def test_warnings_as_errors_do_not_end_fit(
    keras: Any, plain: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="BN Lens")
        watched, _ = fitted(keras, [tb_bnlens.BNLens(str(tmp_path))])
    assert_identical(plain[0], state(watched))
    assert_tells_what_to_do(capsys.readouterr().err.strip().splitlines()[-1])


def test_raise_raises(keras: Any, tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match="only Keras 3 on TensorFlow, JAX or PyTorch is supported"):
        fitted(keras, [tb_bnlens.BNLens(str(tmp_path), on_error="raise")])
    with pytest.raises(NotImplementedError, match="only Keras 3 on TensorFlow, JAX or PyTorch is supported"):
        tb_bnlens.Recorder(built_model(keras), str(tmp_path), on_error="raise")


def test_a_recorder_leaves_the_loop_alone(keras: Any, tmp_path: Path) -> None:
    def loop(recorded: bool) -> Any:
        model = built_model(keras)
        recorder = tb_bnlens.Recorder(model, str(tmp_path), planned_steps=STEPS) if recorded else None
        with recorder or contextlib.nullcontext():
            for x, y in zip(*(np.split(a, STEPS) for a in data()), strict=True):
                model.train_on_batch(x, y)
                if recorder:
                    recorder.record(x, y)
        return model

    plain = loop(recorded=False)
    watched, sentence = sentence_of(lambda: loop(recorded=True))
    assert_identical(state(plain), state(watched))
    assert_tells_what_to_do(sentence)
    assert list(tmp_path.rglob("*")) == []


def test_recalibrate_refuses_and_changes_nothing(keras: Any) -> None:
    model = built_model(keras)
    before = model.get_weights()
    with pytest.raises(NotImplementedError) as refusal:
        tb_bnlens.recalibrate(model, data()[0], batches=3)
    assert_tells_what_to_do(str(refusal.value).removeprefix("tb_bnlens."))
    assert_identical(before * 2, model.get_weights() * 2)


def test_set_momentum_refuses(keras: Any) -> None:
    model = built_model(keras)
    with pytest.raises(NotImplementedError) as refusal:
        tb_bnlens.set_momentum(model, 0.5)
    assert_tells_what_to_do(str(refusal.value).removeprefix("tb_bnlens."))
    assert model.get_layer("first").momentum == 0.9
