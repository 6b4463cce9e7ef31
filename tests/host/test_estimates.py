"""The heatmap's steps to converge end in the report's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tb_bnlens.plugin.estimates import steps_to_converge_by_record
from tb_bnlens.report import run_report
from tests.simulation import Sim, SimLayer, simulate


@pytest.mark.parametrize(
    "layer",
    [
        {"momentum": 0.999},
        {"momentum": 0.9},
        {"momentum": 0.99, "graph_momentum": 0.999},
        {"state": "frozen", "true_variance": 0.1},
        {"state": "never_updated", "true_variance": 0.1},
        {"momentum": 0.99, "poisoned_at": 50},
        {"momentum": 0.9, "samples": 8.0},
        {"momentum": 1.0},
    ],
    ids=str,
)
def test_the_last_record_is_the_report_s(layer: dict[str, Any]) -> None:
    history = simulate(Sim([SimLayer("bn", **layer)], steps=200))
    steps = steps_to_converge_by_record(history)
    assert steps.shape == history.layers.shape[:2]
    (reported,) = (entry["steps_to_converge"] for entry in run_report(history)["layers"])
    expected = {"never": math.inf, None: math.nan}.get(reported, reported)
    assert steps[-1, 0] == pytest.approx(expected, nan_ok=True)
    assert not np.isneginf(steps).any()
