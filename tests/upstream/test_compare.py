"""The comparison finds every kind of difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.upstream.compare import compare
from tests.upstream.plugin import digest

FIT = {"test": "a", "lens": False, "variables": "1", "optimizer": "2", "history": "3"}


def record(*fits: dict[str, Any], outcome: str = "passed") -> dict[str, Any]:
    return {"fits": list(fits), "outcomes": {"a": outcome}}


def test_equal_fits() -> None:
    found = compare(record(FIT, FIT), record({**FIT, "lens": True}, FIT))
    assert (found.fits, found.compared, found.differing) == (2, 1, {})


@pytest.mark.parametrize(
    ("watched", "said"),
    [
        (record(FIT, {**FIT, "variables": "x"}), "variables"),
        (record(FIT, {**FIT, "optimizer": "x", "history": "y"}), "optimizer, history"),
        (record(FIT, {**FIT, "raised": "ValueError"}), "raised (ValueError)"),
        (record(FIT), "1 fits instead of 2"),
        (record(FIT, FIT, FIT), "3 fits instead of 2"),
        (record(FIT, FIT, outcome="failed"), "failed instead of passed"),
        (record(), "0 fits instead of 2"),
    ],
)
def test_differences(watched: dict[str, Any], said: str) -> None:
    assert compare(record(FIT, FIT), watched).differing == {"a": said}


def test_a_digest_knows_every_bit() -> None:
    value = np.zeros(3, np.float32)
    other = value.copy()
    other[2] = -0.0
    assert digest([value]) == digest([value.copy()])
    assert len({digest(v) for v in ([value], [other], [value.astype(np.float64)], [value, value], [value[None]])}) == 5
