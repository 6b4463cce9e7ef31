"""Parse the manifest, JSON from an event file that may be old, foreign or damaged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tb_bnlens.history import Event, Layer, Manifest
from tb_bnlens.metadata import FORMAT, FRAMEWORKS
from tb_bnlens.reader.access import checked_access
from tb_bnlens.reader.bounds import (
    LARGEST_COUNT,
    LARGEST_NUMBER,
    LARGEST_STEP,
    LONGEST_NAME,
    LONGEST_TEXT,
    MOST_CALLS,
    MOST_ENTRIES,
    MOST_LAYERS,
    listed,
    shortened,
)
from tb_bnlens.reader.json_record import BadRecord, json_object

ENDS = ("planned", "early", "interrupted")
DEFAULT_MOMENTUM = 0.99
DEFAULT_EPSILON = 1e-3
LARGEST_AXIS = 64


def parse_manifest(raw: object) -> tuple[Manifest, tuple[str, ...]]:
    """One manifest record, and sentences on what it holds that cannot be.

    Unknown fields are ignored, and a field of the wrong type or out of bounds takes its default, so that a flawed
    manifest still names the layers.

    Raises:
        BadRecord: it is not a JSON object, it does not list layers, or it is larger than any of the recorder.
    """
    body = json_object(raw)
    layers = body.get("layers")
    if not isinstance(layers, list):
        raise BadRecord("it lists no layers")
    flaws = _Flaws()
    of = _Fields(body, flaws)
    manifest = Manifest(
        layers=tuple(_layer(i, item, flaws) for i, item in enumerate(layers[:MOST_LAYERS])),
        format=int(of.number("format", FORMAT, -math.inf, math.inf, whole=True)),
        planned_steps=of.count("planned_steps", LARGEST_STEP),
        batch_size=of.count("batch_size", LARGEST_COUNT),
        replicas=of.count("replicas", LARGEST_COUNT, least=1) or 1,
        tolerance=of.number("tolerance", 0.1, 1e-9, 1.0),
        versions=of.strings("versions"),
        ignore=_ignored(of),
        notes=of.texts("notes"),
        not_evaluated=of.strings("not_evaluated"),
        events=tuple(_event(item, flaws) for item in of.list("events") if isinstance(item, dict)),
        ended=of.one_of("ended", ("", *ENDS)),
        ended_step=of.count("ended_step", LARGEST_STEP),
        source=of.text("source", "", LONGEST_NAME),
        framework=of.one_of("framework", FRAMEWORKS),
        called=of.one_of("called", ("", "forward")),
        untracked=of.texts("untracked"),
        unreached=of.texts("unreached"),
        ranks=tuple(pair for item in of.list("ranks") if (pair := _pair(item))),
    )
    if len(layers) > MOST_LAYERS:
        flaws.cut.add(f"layers ({len(layers):,}, of which {MOST_LAYERS:,} are shown)")
    return manifest, flaws.sentences()


def unnamed_layers(count: int, recorded: Iterable[float]) -> tuple[Layer, ...]:
    """Placeholders for layers that no manifest describes, with the momentum from the records."""
    momentum = [m if math.isfinite(m) else DEFAULT_MOMENTUM for m in recorded]
    momentum += [DEFAULT_MOMENTUM] * (count - len(momentum))
    return tuple(Layer(i, f"layer {i}", 0, momentum[i], DEFAULT_EPSILON) for i in range(count))


def with_events(manifest: Manifest, events: Iterable[Event]) -> Manifest:
    """The manifest with these earlier events too, each once, by step and then in the order given; the last of many."""
    merged = dict.fromkeys((*events, *manifest.events))
    return replace(manifest, events=tuple(sorted(merged, key=lambda event: event.step)[-MOST_ENTRIES:]))


@dataclass
class _Flaws:
    """Names of fields with impossible values, and of fields that were cut."""

    bad: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)

    def sentences(self) -> tuple[str, ...]:
        """One for each kind of flaw that there is."""
        bad = f"The manifest holds what cannot be, and defaults stand for it: {listed(self.bad)}."
        cut = f"The manifest holds more than is shown: {listed(self.cut)}."
        return (bad,) * bool(self.bad) + (cut,) * bool(self.cut)


@dataclass(frozen=True)
class _Fields:
    """Fields of one JSON object, each within its bounds. A missing field takes its default, and is no flaw."""

    body: Mapping[str, Any]
    flaws: _Flaws

    def number(self, name: str, default: float, low: float, high: float, *, whole: bool = False) -> float:
        """A number in a range."""
        value = self.body.get(name)
        if value is None:
            return default
        # NaN compares false. An integer may be too large for a float, and compares all the same.
        if not _is_number(value) or not low <= value <= high or (whole and value in (math.inf, -math.inf)):
            self.flaws.bad.add(name)
            return default
        return int(value) if whole else float(value)

    def count(self, name: str, most: int, *, least: int = 0) -> int | None:
        """A count, None where it is not known."""
        value = self.number(name, math.nan, least, most, whole=True)
        return None if math.isnan(value) else int(value)

    def text(self, name: str, default: str, longest: int) -> str:
        """A text, cut at a length."""
        value = self.body.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            self.flaws.bad.add(name)
            return default
        return self._short(name, value, longest)

    def one_of(self, name: str, known: tuple[str, ...]) -> str:
        """One of these words, the first where it is another."""
        value = self.body.get(name)
        return value if isinstance(value, str) and value in known else known[0]

    def list(self, name: str) -> list[Any]:
        """The last entries of a list."""
        value = self.body.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.flaws.bad.add(name)
            return []
        if len(value) > MOST_ENTRIES:
            self.flaws.cut.add(name)
        return value[-MOST_ENTRIES:]

    def mapping(self, name: str) -> dict[str, Any]:
        """The first entries of an object."""
        value = self.body.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.flaws.bad.add(name)
            return {}
        if len(value) > MOST_ENTRIES:
            self.flaws.cut.add(name)
        return {self._short(name, key, LONGEST_NAME): value[key] for key in list(value)[:MOST_ENTRIES]}

    def texts(self, name: str) -> tuple[str, ...]:
        """The texts of a list, or a single one."""
        value = self.body.get(name)
        items = [value] if isinstance(value, str) else self.list(name)
        return tuple(self._short(name, item, LONGEST_TEXT) for item in items if isinstance(item, str))

    def strings(self, name: str) -> dict[str, str]:
        """The entries of an object that are texts."""
        found = self.mapping(name).items()
        return {key: self._short(name, item, LONGEST_TEXT) for key, item in found if isinstance(item, str)}

    def _short(self, name: str, text: str, longest: int) -> str:
        if len(text) > longest:
            self.flaws.cut.add(name)
        return shortened(text, longest)


def _ignored(of: _Fields) -> dict[str, tuple[str, ...]]:
    return {key: _Fields({"ignore": value}, of.flaws).texts("ignore") for key, value in of.mapping("ignore").items()}


def _layer(index: int, item: object, flaws: _Flaws) -> Layer:
    if not isinstance(item, dict):
        flaws.bad.add("layers")
    of = _Fields(item if isinstance(item, dict) else {}, flaws)
    return Layer(
        index=index,
        name=of.text("name", "", LONGEST_NAME) or f"layer {index}",
        channels=of.count("channels", LARGEST_COUNT) or 0,
        momentum=of.number("momentum", DEFAULT_MOMENTUM, 0.0, 1.0),
        epsilon=of.number("epsilon", DEFAULT_EPSILON, 0.0, LARGEST_NUMBER),
        axis=int(of.number("axis", -1, -LARGEST_AXIS, LARGEST_AXIS, whole=True)),
        kind=of.text("kind", "BatchNormalization", LONGEST_NAME),
        trainable=of.body.get("trainable") is not False,
        order=int(of.number("order", -1, -1, LARGEST_COUNT, whole=True)),
        calls=of.count("calls", MOST_CALLS) or 1,  # 0: nobody could count them
        access=checked_access(of.body.get("access")),
    )


def _event(body: Mapping[str, Any], flaws: _Flaws) -> Event:
    of = _Fields(body, flaws)
    # As many as there are layers: an event may name all of them.
    layers = _many(body.get("layers"))
    amounts = _many(body.get("amounts"))
    return Event(
        step=of.count("step", LARGEST_STEP) or 0,
        kind=of.text("kind", "note", LONGEST_NAME),
        text=of.text("text", "", LONGEST_TEXT),
        layers=tuple(int(i) for i in layers if _is_number(i) and 0 <= i < MOST_LAYERS),
        amounts=tuple(float(x) if _is_number(x) and abs(x) <= LARGEST_NUMBER else math.nan for x in amounts),
    )


def _many(value: object) -> list[Any]:
    return value[:MOST_LAYERS] if isinstance(value, list) else []


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _pair(value: object) -> tuple[float, float] | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    first, second = (float(x) if _is_number(x) and abs(x) <= LARGEST_NUMBER else math.nan for x in value)
    return first, second
