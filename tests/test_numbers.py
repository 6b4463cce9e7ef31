"""Numbers as text: the table that the tab is tested with too."""

import json
import math
from pathlib import Path

import pytest

from tb_bnlens.numbers import number, times

TABLE = json.loads((Path(__file__).parent / "fixtures/numbers.json").read_text())


@pytest.mark.parametrize(("value", "text"), TABLE["number"])
def test_number(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), TABLE["times"])
def test_times(value: float, text: str) -> None:
    assert times(value) == text


def test_what_is_not_a_number_is_a_word() -> None:
    assert [number(x) for x in (None, math.nan, math.inf, -math.inf)] == ["?", "?", "not finite", "not finite"]
