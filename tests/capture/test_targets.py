"""Targets that are classes: a loss near zero is nearly right there, and a small multiple of it does no harm."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tb_bnlens.capture.targets import MOST_VALUES, classes, classes_of_all
from tests.capture.runs import lens, record

LABELS = np.array([0, 2, 1])


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([LABELS], 3),
        ([LABELS[:, None]], 3),
        ([np.array([[True], [False]])], 2),
        ([np.eye(4, dtype=np.float32)], 4),
        ([np.eye(4, dtype=np.int64)], 4),
        ([np.array([-1.0, 1.0])], 2),
        ([np.array([-100, 1, 5])], 6),  # a label that the loss ignores
        ([np.array([0.0, 0.5, 1.0])], 0),
        ([np.array([0.0, 1.0, 2.0])], 0),  # a count is as likely as a label
        ([LABELS, np.array([0.3, 0.1])], 0),  # one output of two is a regression
        ([LABELS, np.eye(5)], 3),
        ([np.zeros(8)], None),  # they may be anything
        ([np.ones(8, np.int64), LABELS], None),
        ([np.array(["a", "b"])], None),
        ([np.empty((0, 2))], None),
        ([], None),
        ([np.tile([0.0, 1.0], MOST_VALUES)], 2),
    ],
)
def test_classes(targets: list[Any], expected: int | None) -> None:
    found = classes(targets)
    assert math.isnan(found) if expected is None else found == expected


def test_batches_of_some_classes_each() -> None:
    def targets(batch: Any) -> list[Any]:
        return [np.asarray(batch)]

    assert classes_of_all(targets, [[0, 1], [2, 2], [3, 5]]) == 6
    assert classes_of_all(targets, [[0.0, 1.0], [0.0, 3.5]]) == 0
    assert math.isnan(classes_of_all(targets, [[1, 1], [object()]]))


@pytest.mark.parametrize(
    ("real", "loss", "expected"), [(False, "sparse_categorical_crossentropy", 3), (True, "mse", 0)]
)
def test_a_record_tells_the_classes(real: bool, loss: str, expected: int, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(96, 4)).astype(np.float32)
    y = x[:, :3] if real else np.argmax(x[:, :3], axis=1)
    keras.utils.set_random_seed(0)
    head = keras.layers.Dense(3, activation=None if real else "softmax")
    model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(), head])
    model.compile("sgd", loss)
    model.fit(x, y, batch_size=32, epochs=2, verbose=0, callbacks=[lens(tmp_path)])
    found = record(tmp_path).loss("classes")
    assert len(found) >= 3 and (found == expected).all()
