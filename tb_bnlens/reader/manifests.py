"""The manifests of a run as one: each flag or momentum that changes writes another, and so does a restart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from tb_bnlens import metadata
from tb_bnlens.history import Event, Manifest
from tb_bnlens.reader.bounds import MOST_MANIFESTS
from tb_bnlens.reader.json_record import parsed
from tb_bnlens.reader.manifest import parse_manifest, unnamed_layers, with_events
from tb_bnlens.reader.series import Table, before_fences

Manifests = Sequence[tuple[Any, Manifest]]
"""(point, what it says), in the order of writing."""


def parse_manifests(points: Sequence[Any]) -> tuple[Manifests, tuple[str, ...]]:
    """The last readable manifests in the order of writing, and sentences on the others."""
    problems: tuple[str, ...] = ()
    if len(points) > MOST_MANIFESTS:
        problems += (f"Of {len(points):,} manifests the last {MOST_MANIFESTS:,} were read.",)
        points = points[-MOST_MANIFESTS:]
    found, reason = parsed(points, parse_manifest)
    problems += tuple(flaw for _, (_, flaws) in found for flaw in flaws)
    if bad := len(points) - len(found):
        which = "The manifest" if bad == len(points) else f"{bad} of {len(points)} manifests"
        problems += (f"{which} could not be used: {reason}.",)
    return [(point, manifest) for point, (manifest, _) in found], problems


def went_back(fences: Sequence[tuple[float, int]], series: Iterable[Sequence[Any]]) -> int | None:
    """Step of the last manifest that invalidated records, or None."""
    valid = [point for points in series for point in points]
    step = None
    for fence in fences:
        count, valid = len(valid), before_fences(valid, [fence])
        step = fence[1] if len(valid) < count else step
    return step


def merged(manifests: Manifests, layers: Table, went_back: int | None) -> Manifest:
    """The last manifest, with the events of earlier ones that no restart invalidated."""
    count = layers.values.shape[1]
    if not manifests:
        return Manifest(layers=unnamed_layers(count, _momentums(layers)))
    _, manifest = manifests[-1]
    events: list[Event] = []
    horizons = list(accumulate((later.step for later, _ in reversed(manifests[1:])), min))
    for (_, earlier), horizon in zip(manifests, reversed(horizons), strict=False):
        events += (event for event in earlier.events if event.step <= horizon)
    told = any(
        event.kind == metadata.EventKind.RESTART and event.step == went_back for event in (*events, *manifest.events)
    )
    if went_back is not None and not told:
        events.append(Event(went_back, metadata.EventKind.RESTART, f"Recording went back to step {went_back}."))
    manifest = with_events(manifest, events)
    if len(layers.steps) and count != len(manifest.layers):
        # Which of its layers the rows are of is not known, and a fix must not name another one.
        return replace(manifest, layers=unnamed_layers(count, _momentums(layers)))
    return manifest


def _momentums(layers: Table) -> list[float]:
    return layers.values[-1, :, metadata.LAYER_INDEX["momentum"]].tolist() if len(layers.steps) else []
