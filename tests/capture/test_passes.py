"""Passes over many batches, and what is left of one that ends in the middle."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.passes import NoPasses, Outcome, Passes
from tb_bnlens.capture.still import found_once, still


class Rows(NoPasses):
    """A model whose rows have a loss of 1 each."""

    def rows(self, _batch: Any, _predictions: Any, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.ones(len(indices))

    def weights(self, _batch: Any) -> None:
        return None


def test_a_pass_that_ends_in_the_middle_leaves_no_rows() -> None:
    def up_to_the_first(index: int, _batch: Any) -> Outcome:
        if index:
            raise NotEvaluated("this batch cannot be had")
        return Outcome(1.0)

    passes = Passes(Rows(), lambda: 1.0)
    for name, forward in (("whole", lambda *_: Outcome(1.0)), ("cut", up_to_the_first)):
        passes.run(name, [0, 1, 2], [4, 4, 4], forward, with_rows=True)
    assert list(passes.rows.losses) == list(passes.results) == ["whole"]
    assert len(passes.rows.of("whole")) == 12
    assert passes.not_evaluated["cut"] == "this batch cannot be had"


def test_what_is_found_of_a_model_is_forgotten_with_the_measurement() -> None:
    model = [1]

    def total(of: list[int]) -> int:
        return sum(of)

    def found() -> int:
        return found_once(total, model)

    with still():
        assert found() == 1
        model.append(2)
        assert found() == 1
        with still():
            assert found() == 1
    assert found() == 3
    with still():
        assert found() == 3
