"""The accuracy that is measured where the user has given no metric."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tb_bnlens.capture.accuracy import Right
from tb_bnlens.capture.errors import NotEvaluated

SCORES = np.array([[0.1, 0.7, 0.2], [0.9, 0.0, 0.1], [0.3, 0.3, 0.4], [0.2, 0.5, 0.3]])
NUMBERS = np.array([1, 0, 1, 1])


@pytest.mark.parametrize(
    ("target", "weights", "expected"),
    [
        (NUMBERS, (), 0.75),
        (NUMBERS[:, None], (), 0.75),
        (np.eye(3)[NUMBERS], (), 0.75),
        (np.array([1, 0, -1, 1]), (), 1.0),
        (np.array([1, 0, 255, 2]), (), 2 / 3),
        (NUMBERS, [np.array([1.0, 0.0, 2.0, 0.0])], 0.5),
    ],
)
def test_accuracy(target: Any, weights: Any, expected: float) -> None:
    assert Right("").more(SCORES, target, weights).values() == {"accuracy": pytest.approx(expected)}


def test_batches_of_unequal_size_and_positions() -> None:
    found = Right("").more(SCORES, NUMBERS).more(SCORES[:2], NUMBERS[:2])
    assert found.values() == {"accuracy": pytest.approx(5 / 6)}
    images = np.stack([SCORES, SCORES])[:, :, None]  # [2, 4, 1, C]
    assert Right("").more(images, np.stack([NUMBERS, NUMBERS])[..., None]).values()["accuracy"] == 0.75
    assert Right("").more(images, np.stack([NUMBERS, 1 - NUMBERS])[..., None], [np.array([1, 0])]).values() == {
        "accuracy": 0.75
    }
    assert Right("").more(SCORES, np.full(4, -1)).values() == {}


def test_padded_positions_do_not_count() -> None:
    """By a weight or a mask of each position; the rows of one of the batches are padded whole."""
    scores, target = np.stack([SCORES, SCORES]), np.stack([NUMBERS, np.zeros(4, int)])
    weight = np.array([[1.0, 1.0, 0.0, 0.5], [0.0, 1.0, 0.0, 0.0]])
    assert Right("").more(scores, target, [weight]).values() == {"accuracy": 1.0}
    assert Right("").more(scores, target[..., None], [weight[..., None]]).values() == {"accuracy": 1.0}
    assert Right("").more(scores, target, [weight, np.array([0, 1])]).values() == {"accuracy": 1.0}
    with pytest.raises(NotEvaluated):
        Right("").more(scores, target, [weight[:, :2]])


@pytest.mark.parametrize(
    ("scores", "target"),
    [
        (SCORES, SCORES),  # soft targets
        (SCORES[:, :2], np.array([0, 1, 2, 1])),  # an embedding, and the classes of a loss on pairs
        (SCORES, NUMBERS.astype(float)),
        (SCORES[:, :1], NUMBERS),  # the threshold is not known
        (SCORES[:, 0], NUMBERS),
        (SCORES, NUMBERS[:3]),
        (SCORES, np.ones((4, 3))),  # several classes at once
        (SCORES.astype(int), NUMBERS),
    ],
)
def test_what_has_no_accuracy(scores: Any, target: Any) -> None:
    with pytest.raises(NotEvaluated, match="no metrics"):
        Right("no metrics").more(scores, target)
