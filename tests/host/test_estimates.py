"""The heatmap's derived series end in what the report says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tb_bnlens.plugin.estimates import steps_to_converge_by_record, variance_ratio_by_record
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
    expected = math.inf if reported == "never" else math.nan if reported is None else reported
    assert steps[-1, 0] == pytest.approx(expected, nan_ok=True)
    assert not np.isneginf(steps).any()


def test_noise_beyond_that_of_random_samples_hides_no_estimate() -> None:
    """Noise measured long ago can be many times what it is now; the report caps it, and so does the heatmap."""
    layer = SimLayer("bn", momentum=0.999, true_variance=0.05)
    history = simulate(Sim([layer], steps=200, overrides={"noise_mean": 1.0, "noise_variance": 100.0}))
    (reported,) = (entry["steps_to_converge"] for entry in run_report(history)["layers"])
    assert isinstance(reported, int)
    assert steps_to_converge_by_record(history)[-1, 0] == pytest.approx(reported)


@pytest.mark.parametrize("true_variance", [0.1, 10.0])
def test_the_variance_ratio_starts_on_its_side_of_1_and_ends_in_the_report_s(true_variance: float) -> None:
    history = simulate(Sim([SimLayer("bn", momentum=0.99, true_variance=true_variance)], steps=100))
    ratio = variance_ratio_by_record(history)
    assert ratio.shape == history.layers.shape[:2] and ratio.dtype == np.float32
    (reported,) = (entry["variance_ratio"] for entry in run_report(history)["layers"])
    assert ratio[-1, 0] == pytest.approx(reported)
    # The moving variance starts at 1 and never overshoots.
    assert (ratio > 1).all() == (true_variance < 1)
    assert (ratio < 1).all() == (true_variance > 1)
