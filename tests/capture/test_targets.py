"""Targets that are classes: a loss near zero is nearly right there, and a small multiple of it does no harm."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tb_bnlens.capture.targets import MOST_VALUES, NO_CLASSES, entropy, entropy_in_all
from tests.capture.runs import lens, record

LABELS = np.array([0, 2, 1])
RARE = -0.004 * math.log(0.004) - 0.996 * math.log(0.996)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([LABELS], math.log(3)),
        ([LABELS[:, None]], math.log(3)),
        ([np.array([[True], [False]])], math.log(2)),
        ([np.eye(4, dtype=np.float32)], math.log(4)),
        ([np.eye(4, dtype=np.int64)], math.log(4)),
        ([np.array([-1.0, 1.0])], math.log(2)),
        ([np.array([0, 1, 255], np.uint8)], math.log(3)),
        ([np.repeat([0.0, 1.0], [249, 1])], RARE),
        ([np.array([[1, 1], [0, 1]])], math.log(2) / 2),  # one of two columns tells nothing
        ([np.array([0.0, 0.5, 1.0])], NO_CLASSES),
        ([np.array([0.0, 1.0, 2.0])], NO_CLASSES),  # a count is as likely as a label
        ([LABELS, np.array([0.3, 0.1])], NO_CLASSES),  # one output of two is a regression
        ([LABELS, np.eye(5)], math.log(3)),
        ([np.zeros(8)], 0.0),
        ([np.array(["a", "b"])], None),
        ([np.empty((0, 2))], None),
        ([], None),
        ([np.repeat([0.0, 1.0], MOST_VALUES)], math.log(2)),
    ],
)
def test_entropy(targets: list[Any], expected: float | None) -> None:
    found = entropy(targets)
    assert math.isnan(found) if expected is None else found == pytest.approx(expected, rel=1e-3)


def test_batches_of_some_classes_each() -> None:
    def targets(batch: Any) -> list[Any]:
        return [np.asarray(batch)]

    assert entropy_in_all(targets, [[0, 1], [2, 2], [3, 5]]) == pytest.approx(2 / 3 * math.log(2))
    assert entropy_in_all(targets, [[0.0, 1.0], [0.0, 3.5]]) == NO_CLASSES
    assert entropy_in_all(targets, [[1, 1], [object()]]) == 0.0
    assert math.isnan(entropy_in_all(targets, [[object()]]))


@pytest.mark.parametrize(("real", "loss"), [(False, "sparse_categorical_crossentropy"), (True, "mse")])
def test_a_record_tells_the_entropy(real: bool, loss: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(96, 4)).astype(np.float32)
    y = x[:, :3] if real else np.argmax(x[:, :3], axis=1)
    keras.utils.set_random_seed(0)
    head = keras.layers.Dense(3, activation=None if real else "softmax")
    model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(), head])
    model.compile("sgd", loss)
    model.fit(x, y, batch_size=32, epochs=2, verbose=0, callbacks=[lens(tmp_path)])
    found = record(tmp_path).loss("target_entropy")
    assert len(found) >= 3
    assert (found == NO_CLASSES).all() if real else ((found > 0.8 * math.log(3)) & (found <= math.log(3))).all()
