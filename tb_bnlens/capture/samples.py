"""Losses of single rows in a few figures, so that harm in some of them shows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

QUANTILES = {"q01": 0.01, "q10": 0.1, "median": 0.5, "q90": 0.9, "q99": 0.99, "max": 1.0}
TOP = 0.05


def summary(losses: Array) -> dict[str, float]:
    """Count, mean and quantiles of the losses of rows; figures of ``metadata.SAMPLE_FIGURES``."""
    if not len(losses):
        return {"count": 0.0}
    with np.errstate(all="ignore"):
        quantiles = np.quantile(losses, list(QUANTILES.values()))
    return {
        "count": float(len(losses)),
        "mean": float(np.mean(losses)),
        "deviation": float(np.std(losses)),
        **{name: float(value) for name, value in zip(QUANTILES, quantiles, strict=True)},
    }


def summary_of_difference(losses: Array, reference: Array) -> dict[str, float]:
    """The same of paired differences, and how far a few rows make them up.

    Example:
        >>> found = summary_of_difference(np.r_[np.full(19, 1.0), 9.0], np.linspace(0.9, 1.1, 20))
        >>> found["share_higher"], found["share_of_top"] > 0.8
        (0.05, True)
    """
    apart = losses - reference
    found = summary(apart)
    if not len(apart):
        return found
    with np.errstate(all="ignore"):
        low, high = np.quantile(reference, (0.1, 0.9))
        found["share_higher"] = float(np.mean(~(apart <= high - low)))
        ranked = np.sort(np.maximum(apart, 0))[::-1]
        total = ranked.sum()
        found["share_of_top"] = float(ranked[: max(1, round(TOP * len(ranked)))].sum() / total) if total > 0 else 0.0
    return found
