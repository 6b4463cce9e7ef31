"""Compare two runs of tests that ``plugin`` has recorded, fit by fit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KEYS = ("variables", "optimizer", "history", "raised")

Record = Mapping[str, Any]
"""What ``plugin`` writes at the end of a run."""


@dataclass(frozen=True)
class Comparison:
    """What the lens did to a run of tests."""

    fits: int
    """Fits of the run without the lens."""
    compared: int
    """Those of them that had the lens in the other run."""
    differing: Mapping[str, str]
    """Test -> what of its fits or of its outcome differs."""


def compare(plain: Record, watched: Record) -> Comparison:
    """Two runs of the same tests, the second with the lens."""
    before, after = _by_test(plain), _by_test(watched)
    differing: dict[str, str] = {}
    compared = 0
    for test, fits in before.items():
        others = after.get(test, [])
        compared += sum(bool(other["lens"]) for other in others[: len(fits)])
        if len(others) != len(fits):
            differing[test] = f"{len(others)} fits instead of {len(fits)}"
        for fit, other in zip(fits, others, strict=False):
            if changed := [key for key in KEYS if fit.get(key) != other.get(key)]:
                differing[test] = ", ".join(changed) + (f" ({other['raised']})" if "raised" in other else "")
                break
    for test, outcome in plain["outcomes"].items():
        if watched["outcomes"].get(test) != outcome:
            differing.setdefault(test, f"{watched['outcomes'].get(test)} instead of {outcome}")
    return Comparison(len(plain["fits"]), compared, differing)


def _by_test(record: Record) -> dict[str, list[Any]]:
    fits: dict[str, list[Any]] = defaultdict(list)
    for fit in record["fits"]:
        fits[fit["test"]].append(fit)
    return fits
