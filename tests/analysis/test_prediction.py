"""Steps to converge, predicted early in a training and measured in the rest of it, without the lens.

The constants of the estimate were not fitted to the trainings of the test. What was measured is in
docs/measurements.md; ``python -m tests.calibration FOLDER`` records the trainings, and
BN_LENS_CALIBRATION=FOLDER makes the test use them.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from tests.calibration.recording import SETS, record_set  # noqa: E402
from tests.calibration.score import Prediction, arrival_of, load, of_layers, of_the_loss, summary  # noqa: E402


def test_a_curve_arrives_where_it_stays() -> None:
    steps = np.arange(0.0, 100.0, 10.0)
    excess = np.array([1.0, -1.0, 1.0, 0.5, -0.5, -1.0, -1.0, -1.0, -1.0, -1.0])
    # Within at step 10, out again at step 20; from 0.5 to -0.5 it crosses in the middle.
    assert arrival_of(steps, excess, 0, stay=15) == 35.0
    assert arrival_of(steps, excess, 0, stay=5) == 5.0
    assert arrival_of(steps, excess, 60, stay=15) == 0.0
    assert arrival_of(steps, np.ones(10), 0, stay=15) == np.inf


def prediction(low: float, high: float, observed: float, left: float = 500.0) -> Prediction:
    return Prediction("", 100, 0, low, 0.5 * (low + high), high, high, True, observed, left)


def test_what_never_came_counts() -> None:
    assert prediction(100, 200, 150).held and not prediction(100, 200, 250).held
    assert not prediction(100, 200, np.inf).held
    assert prediction(100, np.inf, np.inf).held and prediction(100, 600, np.inf).held
    assert summary([prediction(100, 200, np.inf), prediction(100, 200, 150)]).coverage == 0.5


@pytest.mark.slow
def test_intervals_hold_80_percent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = record_set("test", Path(os.environ.get("BN_LENS_CALIBRATION", tmp_path)))
    trainings, seed = SETS["test"]
    layers, losses, slow = [], [], []
    kinds: defaultdict[str, list[Prediction]] = defaultdict(list)
    for label, training in trainings.items():
        recorded = load(folder, f"{label}-{seed}")
        found = list(of_layers(label, recorded))
        layers += found
        losses += list(of_the_loss(label, recorded))
        kinds[training.kind] += found
        slow += found if training.rate <= 1e-3 else []
    with capsys.disabled():
        for kind, found in {**kinds, "all": layers, "learning rate up to 1e-3": slow, "the loss": losses}.items():
            print(f"\n{kind}: {summary(found)}", end="")
    every = summary(layers)
    assert every.said >= 15
    assert 0.7 <= every.coverage <= 0.9
    assert summary(slow).width <= 4.0
    assert summary(losses).coverage >= 0.7
    assert all(p.worst >= p.steps for p in layers if not np.isnan(p.steps))
