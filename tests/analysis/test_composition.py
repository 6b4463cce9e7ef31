"""Figures about what batches hold, against draws at random."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tb_bnlens.analysis.composition import Composition
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.regrouped import FALSE_ALARMS, REGROUPINGS, chance_of_ratio
from tests.diagnosis.runs import level, measured


def composition(phases: Any = None, **passes: Any) -> Composition:
    history = measured(level(), **passes)
    if phases is not None:
        history = replace(history, evidence=(replace(history.evidence[0], batch_phases=np.array(phases)),))
    found = Facts(history).composition
    assert found is not None
    return found


@pytest.mark.parametrize("tail", [0.5, 1.0, 2.0])
def test_losses_of_random_batches_are_not_unlike(tail: float) -> None:
    """However heavy the tails; of 300 runs at most two may be called so."""
    rng = np.random.default_rng(1)
    found = [chance_of_ratio(*np.exp(tail * rng.normal(size=(2, 24)))) <= FALSE_ALARMS for _ in range(300)]
    assert sum(found) <= 2


@pytest.mark.parametrize("count", [12, 24])
def test_losses_of_sorted_batches_are_unlike(count: int) -> None:
    rng = np.random.default_rng(2)
    classes = np.repeat([0.2, 1.0, 2.0, 3.0], count // 4)
    found = [
        chance_of_ratio(classes + 0.2 * rng.normal(size=count), 1.5 + 0.2 * rng.normal(size=count)) for _ in range(20)
    ]
    assert max(found) <= FALSE_ALARMS


def test_the_chance_of_few_values_is_not_small() -> None:
    assert chance_of_ratio(np.array([0.0, 9.0]), np.array([0.0, 1.0])) == 1.0
    assert chance_of_ratio(np.array([0.0, 9.0, np.inf]), np.zeros(3)) == 1.0
    assert 1 / (1 + REGROUPINGS) < FALSE_ALARMS


def test_fits_that_take_turns() -> None:
    phases = [0] * 6 + [1] * 6
    served = composition(phases, inference=[3.0, 3.2] * 3 + [1.0, 1.1] * 3, batch=1.0)
    assert served.on_earlier.value == pytest.approx(2.1) and served.on_last.value == pytest.approx(0.05)
    assert served.last_is_served_best
    assert not composition(phases, inference=[1.0, 1.1] * 6, batch=1.0).last_is_served_best
    assert not composition(phases, inference=[1.0, 1.1] * 3 + [3.0, 3.2] * 3, batch=1.0).last_is_served_best
    assert not composition(None, inference=1.0, batch=1.0).on_last.known


def test_what_is_left_of_the_loss_does_not_depend_on_an_offset() -> None:
    def left(offset: float) -> float:
        history = level(batch=2.0 + offset)
        rows = {"batch": {"mean": 1.0 + offset, "q01": offset}}
        found = Facts(measured(history, inference=0.5 + offset, batch=1.0 + offset, samples=rows)).composition
        assert found is not None
        return found.left("inference")

    assert left(0.0) == pytest.approx(0.25) == left(100.0)


def test_the_best_fixed_statistics_are_the_rival_of_noise() -> None:
    found = composition(inference=3.0, recalibrated=2.0, replay_0__9=1.5, batch=1.0)
    assert found.best_fixed == "recalibrated" and found.noise.value == pytest.approx(1.0)
