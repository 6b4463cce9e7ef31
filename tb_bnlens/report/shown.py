"""What every form of the report shows: the modes of the losses, the findings that count, the layers farthest off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MODES = {
    "training": "training",
    "batch": "batch statistics",
    "recalibrated": "recalibrated",
    "inference": "inference",
}
"""Keys of the report's losses, in the order of the tab, with their names."""


def loss_of(losses: Mapping[str, Any], mode: str) -> Any:
    """The loss of a mode, None where it was not measured; recalibrated at the present weights where that was."""
    fresh = losses["recalibrated_now"] if mode == "recalibrated" else None
    return losses[mode] if fresh is None else fresh


def measured_modes(losses: Mapping[str, Any]) -> list[str]:
    """The modes that have a loss, finite or not."""
    return [mode for mode in MODES if loss_of(losses, mode) is not None or mode in losses["overflowed"]]


def counts(finding: Mapping[str, Any]) -> bool:
    """Whether a finding of a report decides its severity: it failed, is not silenced, and has no other cause."""
    return finding["status"] == "fail" and not finding["silenced"] and not finding["explained_by"]


def farthest(layers: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """The layers whose statistics are farthest off, the worst first."""
    return sorted((x for x in layers if x["distance"] is not None), key=lambda x: -x["distance"])[:most]
