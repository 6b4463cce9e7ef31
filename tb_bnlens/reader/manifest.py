"""Parse the manifest, JSON from an event file that may be old, foreign or damaged."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tb_bnlens.history import Event, Layer, Manifest
from tb_bnlens.metadata import FORMAT, KERAS, TORCH
from tb_bnlens.reader.access import checked_access

ENDS = ("planned", "early", "interrupted")
DEFAULT_MOMENTUM = 0.99
DEFAULT_EPSILON = 1e-3


class BadManifest(ValueError):
    """The manifest cannot be used."""


def parse_manifest(raw: object) -> Manifest:
    """One manifest record.

    Unknown fields are ignored, and a field of the wrong type takes its default, so that a flawed manifest still
    names the layers.

    Raises:
        BadManifest: it is not a JSON object, or it does not list layers.
    """
    try:
        text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
        body = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError) as error:
        raise BadManifest(f"it is not JSON ({error})") from error
    if not isinstance(body, dict):
        raise BadManifest("it is not a JSON object")
    layers = body.get("layers")
    if not isinstance(layers, list):
        raise BadManifest("it lists no layers")
    return Manifest(
        layers=tuple(_layer(i, item) for i, item in enumerate(layers)),
        format=_integer_or(body.get("format"), FORMAT),
        planned_steps=_integer(body.get("planned_steps")),
        batch_size=_integer(body.get("batch_size")),
        replicas=max(1, _integer_or(body.get("replicas"), 1)),
        tolerance=_positive(body.get("tolerance"), 0.1),
        versions=_strings(body.get("versions")),
        ignore={key: _texts(value) for key, value in _mapping(body.get("ignore")).items()},
        notes=_texts(body.get("notes")),
        not_evaluated=_strings(body.get("not_evaluated")),
        events=tuple(_event(item) for item in _list(body.get("events")) if isinstance(item, dict)),
        ended=ended if (ended := body.get("ended")) in ENDS else "",
        ended_step=_integer(body.get("ended_step")),
        source=_text(body.get("source"), ""),
        framework=TORCH if body.get("framework") == TORCH else KERAS,
        untracked=_texts(body.get("untracked")),
        ranks=tuple(pair for item in _list(body.get("ranks")) if (pair := _pair(item))),
    )


def unnamed_layers(count: int, recorded: Iterable[float]) -> tuple[Layer, ...]:
    """Placeholders for layers that no manifest describes, with the momentum from the records."""
    momentum = [m if math.isfinite(m) else DEFAULT_MOMENTUM for m in recorded]
    momentum += [DEFAULT_MOMENTUM] * (count - len(momentum))
    return tuple(Layer(i, f"layer {i}", 0, momentum[i], DEFAULT_EPSILON) for i in range(count))


def with_events(manifest: Manifest, events: Iterable[Event]) -> Manifest:
    """The manifest with these earlier events too, each once, by step and then in the order given."""
    merged = dict.fromkeys((*events, *manifest.events))
    return replace(manifest, events=tuple(sorted(merged, key=lambda event: event.step)))


def _layer(index: int, item: object) -> Layer:
    body = _mapping(item)
    name = body.get("name")
    return Layer(
        index=index,
        name=name if isinstance(name, str) and name else f"layer {index}",
        channels=max(0, _integer_or(body.get("channels"), 0)),
        momentum=_number(body.get("momentum"), DEFAULT_MOMENTUM),
        epsilon=_number(body.get("epsilon"), DEFAULT_EPSILON),
        axis=_integer_or(body.get("axis"), -1),
        kind=_text(body.get("kind"), "BatchNormalization"),
        trainable=body.get("trainable") is not False,
        order=_integer_or(body.get("order"), -1),
        calls=max(1, _integer_or(body.get("calls"), 1)),
        access=checked_access(body.get("access")),
    )


def _event(body: Mapping[str, Any]) -> Event:
    layers = [_integer(item) for item in _list(body.get("layers"))]
    return Event(
        step=_integer_or(body.get("step"), 0),
        kind=_text(body.get("kind"), "note"),
        text=_text(body.get("text"), ""),
        layers=tuple(i for i in layers if i is not None and i >= 0),
        amounts=tuple(_number(item, math.nan) for item in _list(body.get("amounts"))),
    )


def _integer(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # A value that a 64-bit step counter cannot hold is not a count. NaN compares false.
    return int(value) if -(2**63) <= value < 2**63 else None


def _integer_or(value: object, default: int) -> int:
    number = _integer(value)
    return default if number is None else number


def _number(value: object, default: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    return float(value) if -1e300 <= value <= 1e300 else default


def _positive(value: object, default: float) -> float:
    number = _number(value, default)
    return number if number > 0 else default


def _text(value: object, default: str) -> str:
    return value if isinstance(value, str) else default


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _pair(value: object) -> tuple[float, float] | None:
    items = [_number(item, math.nan) for item in _list(value)]
    return (items[0], items[1]) if len(items) == 2 else None


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(item for item in _list(value) if isinstance(item, str))


def _strings(value: object) -> dict[str, str]:
    return {key: item for key, item in _mapping(value).items() if isinstance(item, str)}
