"""Which passes have a separate trace, and that passes without one give what a trace would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_bnlens.capture.passes import moments_of
from tb_bnlens.frameworks.keras3.adapter import KerasModel
from tb_bnlens.frameworks.keras3.generation import LIBRARY
from tb_bnlens.frameworks.keras3.own_code import has_keras_metrics, is_all_keras, trains_as_it_infers
from tb_bnlens.frameworks.keras3.runner import KerasRunner
from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.segments import Segments

layers = keras.layers


def mine(x: Any, *_: Any) -> Any:
    return x


class MyNorm(keras.layers.BatchNormalization):  # type: ignore[misc]
    """A user's layer."""


def network(*parts: Any, loss: Any = "mse", metrics: Any = ("mae",)) -> Any:
    x = inputs = keras.Input((4,))
    for part in (layers.Dense(3), layers.BatchNormalization(), *parts):
        x = part(x)
    model = keras.Model(inputs, x)
    model.compile("sgd", loss, metrics=list(metrics))
    return model


def dense(**options: Any) -> Any:
    return layers.Dense(3, **options)


@pytest.mark.parametrize(
    ("model", "own", "one_mode"),
    [
        (lambda: network(dense(activation="relu", kernel_regularizer="l2")), True, True),
        (lambda: network(keras.Sequential([layers.BatchNormalization()]), loss=keras.losses.Huber()), True, True),
        (lambda: network(layers.Dropout(0.1)), True, False),
        (lambda: network(lambda x: layers.BatchNormalization()(x, training=True)), True, False),
        (lambda: network(lambda x: keras.ops.relu(x)), True, True),
        (lambda: network(dense(activation=mine)), False, False),
        (lambda: network(dense(kernel_regularizer=mine)), False, False),
        (lambda: network(layers.Lambda(mine)), False, False),
        (lambda: network(MyNorm()), False, False),
        (lambda: network(dense(activation=tf.function(mine))), False, False),
        (lambda: network(loss=lambda y, p: keras.ops.mean(y - p, axis=-1)), False, False),
    ],
)
def test_code_of_the_user_is_found(model: Callable[[], Any], own: bool, one_mode: bool) -> None:
    made = model()
    made.make_train_function()
    assert (is_all_keras(LIBRARY, made, None), trains_as_it_infers(LIBRARY, made, None)) == (own, one_mode)
    assert not is_all_keras(LIBRARY, made, mine)


def test_metrics_of_the_user_are_found() -> None:
    assert has_keras_metrics(LIBRARY, network(metrics=("mae", keras.metrics.AUC())))
    assert not has_keras_metrics(LIBRARY, network(metrics=(mine,)))
    assert not has_keras_metrics(LIBRARY, network(metrics=(keras.metrics.MeanMetricWrapper(mine),)))


def test_passes_without_a_trace_give_what_a_trace_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    keras.utils.set_random_seed(0)
    model = network(layers.ReLU(), layers.BatchNormalization(momentum=0.8), dense())
    rng = np.random.default_rng(0)
    batch = tuple(tf.constant(rng.normal(size=(16, n)), tf.float32) for n in (4, 3))
    for variable in model.non_trainable_variables:
        if "moving" in variable.path:
            variable.assign(rng.uniform(0.5, 2.0, variable.shape))
    adapter = KerasModel(model)
    found = adapter.layers()
    segments = Segments([t.channels for t in found])
    snapshot = adapter.reader(found).read()
    moving = Moments(snapshot.mean, snapshot.spread)

    shared: Any = adapter.runner(found, segments)
    first, second = shared.training(batch), shared.inference(batch, moving)
    assert shared.trains_by_batch and shared.trains == {0: True, 1: True}
    assert len(shared._engine._traced) == 1

    monkeypatch.setattr(KerasRunner, "_has_one_mode", lambda *_: False)
    monkeypatch.setattr(KerasRunner, "_is_shared", lambda *_: False)
    apart: Any = adapter.runner(found, segments)
    third, fourth = apart.training(batch), apart.inference(batch, moving)
    assert not apart.trains_by_batch and len(apart._engine._traced) == 2
    assert first.loss == pytest.approx(third.loss, rel=1e-6) and second.loss == pytest.approx(fourth.loss, rel=1e-6)
    seen, expected = moments_of(first), moments_of(third)
    np.testing.assert_allclose(seen.mean, expected.mean, rtol=1e-6)
    np.testing.assert_allclose(seen.variance, expected.variance, rtol=1e-6)
    # What the step would make of the statistics follows from those of the batch.
    step = segments.per_channel(apart.gain) * (seen.mean - snapshot.mean)
    assert third.after is not None and first.after is None
    np.testing.assert_allclose(snapshot.mean + step, third.after.mean, rtol=1e-5, atol=1e-6)
