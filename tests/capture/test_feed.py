"""The look at the training batch: the step must be given back the very same data, as the very same type."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.frameworks.keras_tensorflow.backend import BACKEND
from tests.capture import models
from tests.capture.runs import assert_same, lens, record, state, strange_datasets
from tests.capture.setups import Setup, arrays


def of_keras(iterator: Any) -> None:
    """A train function of Keras, as far as the look can tell."""


of_keras.__module__ = "keras.src.backend.tensorflow.trainer"


def peek(iterator: Any, count: int, function: Any = of_keras) -> tuple[Any, list[Any]]:
    """What the step gets, and what the lens sees."""
    look = BACKEND.looks(function)(iterator)
    seen = look.batches(count)
    if look.error is not None:
        raise look.error
    return look.given_back, seen


class Stand(keras.callbacks.Callback):  # type: ignore[misc]
    """Hands every step a stand-in for its iterator."""

    def __init__(self, stand_in: Any) -> None:
        super().__init__()
        self.stand_in = stand_in

    def on_train_begin(self, logs: Any = None) -> None:
        inner = self.model.train_function
        self.model.train_function = lambda iterator: inner(self.stand_in(iterator, self.model.steps_per_execution))

    def on_train_end(self, logs: Any = None) -> None:
        self.model.train_function = None


def with_a_spec_of_its_own(iterator: Any, count: int) -> Any:
    elements = [e for e in (next(iterator, None) for _ in range(count)) if e is not None]
    if not elements:
        return iterator
    data = tf.data.Dataset.from_tensors(elements[0])
    for element in elements[1:]:
        data = data.concatenate(tf.data.Dataset.from_tensors(element))
    return iter(data)


def with_the_same_spec(iterator: Any, count: int) -> Any:
    return peek(iterator, count)[0]


class CountsTraces(keras.Model):  # type: ignore[misc]
    traces = 0

    def train_step(self, data: Any) -> Any:
        self.traces += 1
        return super().train_step(data)


def trained(executions: int, *callbacks: Any, optimizer: Any = keras.optimizers.Adam, batch: int = 10) -> Any:
    def model() -> Any:
        inputs = keras.Input((6,))
        x = keras.layers.BatchNormalization()(keras.layers.Dense(5)(inputs))
        return CountsTraces(inputs, keras.layers.Dense(1)(x))

    made = Setup("", model, compile={"optimizer": lambda: optimizer(0.01), "steps_per_execution": executions}).make()
    data = tf.data.Dataset.from_tensor_slices(arrays(57)).batch(batch)
    with strange_datasets():
        made.fit(data, epochs=2, verbose=0, callbacks=list(callbacks))
    return made


def apart(a: Any, b: Any) -> float:
    kept = state(a), state(b)
    return max(float(np.max(np.abs(kept[0][k] - kept[1][k]))) for k in kept[0] if k.startswith("weights"))


@pytest.mark.parametrize("executions", [1, 3])
def test_why_the_spec_must_be_the_same(executions: int) -> None:
    """With batches of 10 and a ragged last one, a look that changed the iterator's type changed the weights.

    A static batch size makes TensorFlow trace the step again, and there the 1/10 of every mean is a constant by which
    TensorFlow multiplies, where the first trace divides. The last bit differs, and Adam makes a whole step of the
    rounding noise of a bias that BatchNorm cancels. (Batches of 8 are exact either way, which hid it.)
    """
    without = trained(executions)
    naive = trained(executions, Stand(with_a_spec_of_its_own))
    assert naive.traces > without.traces and apart(without, naive) > 1e-5
    assert (
        0
        < apart(
            trained(executions, optimizer=keras.optimizers.SGD),
            trained(executions, Stand(with_a_spec_of_its_own), optimizer=keras.optimizers.SGD),
        )
        < 1e-6
    )

    ours = trained(executions, Stand(with_the_same_spec))
    assert ours.traces == without.traces and apart(without, ours) == 0.0


def test_peek_gives_back_what_it_took() -> None:
    data = tf.data.Dataset.from_tensor_slices(arrays(28)).batch(8)
    iterator = iter(data)
    stand_in, elements = peek(iterator, 3)
    assert [len(x) for x, _ in elements] == [8, 8, 8]
    assert stand_in.element_spec == data.element_spec
    again = [x.numpy() for x, _ in stand_in]
    assert all(np.array_equal(a, b[0]) for a, b in zip(again, elements, strict=True))
    rest, elements = peek(iterator, 3)
    assert [len(x) for x, _ in elements] == [4] and len(list(rest)) == 1
    same, elements = peek(iterator, 3)
    assert same is iterator and elements == []


def test_one_stand_in_serves_all_steps() -> None:
    data = tf.data.Dataset.from_tensor_slices(arrays(28)).batch(8)
    iterator, looks, stand_ins = iter(data), BACKEND.looks(of_keras), set()
    for x, _ in data:
        look = looks(iterator)
        ((seen, _),) = look.batches(1)
        given, _ = next(look.given_back)
        assert np.array_equal(seen, x) and np.array_equal(given, x)
        with pytest.raises(StopIteration):
            next(look.given_back)  # never one batch twice
        stand_ins.add(id(look.given_back))
    assert len(stand_ins) == 1 and looks(iterator).batches(1) == []


class TwoAtOnce(keras.Model):  # type: ignore[misc]
    """Takes two batches in each step, which no attribute of Keras tells."""

    def make_train_function(self, force: bool = False) -> Any:
        def two(iterator: Any) -> Any:
            self.train_step(next(iterator))
            return self.train_step(next(iterator))

        self.train_function = tf.function(two, reduce_retracing=True)
        return self.train_function


def test_a_step_may_take_more_than_was_looked_at(tmp_path: Path) -> None:
    def fitted(*callbacks: Any) -> Any:
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,))
        model = TwoAtOnce(inputs, keras.layers.Dense(1)(keras.layers.BatchNormalization()(inputs)))
        model.compile("adam", "mse")
        data = tf.data.Dataset.from_tensor_slices(arrays(64)).batch(8, drop_remainder=True).repeat()
        model.fit(data, epochs=2, steps_per_epoch=4, shuffle=False, verbose=0, callbacks=list(callbacks))
        return dict(enumerate(state(model).values()))  # their paths count the models of the process

    without, watched = fitted(), fitted(lens(tmp_path))
    assert_same(without, watched)
    assert record(tmp_path).steps[-1] == 8


class CountsCalls(keras.callbacks.Callback):  # type: ignore[misc]
    """Counts calls of the lens' functions up to each step."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.made, self.last = 0, list[int](), list[int]()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.made.append(self.calls)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.last.append(self.calls - self.made[-1])

    def see(self, frame: Any, event: str, _: Any) -> None:
        self.calls += event == "call" and frame.f_globals.get("__name__", "").startswith("tb_bnlens.")


def test_a_step_without_work_passes_through_two_functions(tmp_path: Path) -> None:
    counts, data = CountsCalls(), tf.data.Dataset.from_tensor_slices(arrays(64)).batch(8).repeat()
    model = Setup("", models.sequential).make()
    callbacks = [counts, lens(tmp_path, overhead=0.01)]
    sys.setprofile(counts.see)
    try:
        model.fit(data, steps_per_epoch=25, epochs=16, shuffle=False, verbose=0, callbacks=callbacks)
    finally:
        sys.setprofile(None)
    assert np.diff(counts.made).min() == 2 and min(counts.last) == 2
    assert record(tmp_path).steps[-1] == 400


def test_asynchronous_ops_tell_the_end_of_the_data_in_time() -> None:
    iterator = iter(tf.data.Dataset.from_tensor_slices(arrays(8)).batch(8))
    tf.config.experimental.set_synchronous_execution(False)
    try:
        _, seen = peek(iterator, 1)
        _, none = peek(iterator, 1)
    finally:
        tf.config.experimental.set_synchronous_execution(True)
    assert len(seen) == 1 and none == []


def test_peek_at_a_generator() -> None:
    x, y = arrays(24)
    source = iter([(x[i : i + 8], y[i : i + 8], None) for i in range(0, 24, 8)])
    stand_in, elements = peek(source, 2)
    assert len(elements) == 2 and elements[0][2] is None and tf.is_tensor(elements[0][0])
    given = list(stand_in)
    assert len(given) == 3 and given[0][0] is not elements[0][0], "the step gets the user's own arrays"


def test_peek_leaves_what_it_does_not_know() -> None:
    with pytest.raises(NotEvaluated, match="the step gets an object"):
        peek(object(), 1)


def test_structures_survive() -> None:
    x, y = arrays(8)
    data = tf.data.Dataset.from_tensor_slices(({"a": x, "b": (x, x)}, {"out": y}, y[:, 0])).batch(4)
    stand_in, _ = peek(iter(data), 2)
    first, expected = next(stand_in), next(iter(data))
    assert keras.tree.map_structure(lambda t: t.shape, first) == keras.tree.map_structure(lambda t: t.shape, expected)


def test_ragged_and_sparse_tensors_survive() -> None:
    ragged = tf.ragged.constant([[1.0], [2.0, 3.0], [4.0]])
    sparse = tf.sparse.from_dense(np.eye(3, dtype=np.float32))
    data = tf.data.Dataset.from_tensor_slices((ragged, sparse)).batch(2)
    stand_in, _ = peek(iter(data), 2)
    for (r, s), (r0, s0) in zip(stand_in, data, strict=True):
        assert r.to_list() == r0.to_list()
        assert np.array_equal(tf.sparse.to_dense(s), tf.sparse.to_dense(s0))
