"""Measurements on many batches: JSON from an event file, which may be foreign or damaged, to ``Evidence``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.history import Evidence, PassResult
from tb_bnlens.metadata import EVIDENCE_ROWS, MOMENTS
from tb_bnlens.reader.bounds import LARGEST_NUMBER, LARGEST_STEP, MOST_LAYERS
from tb_bnlens.reader.json_record import BadRecord, json_object

MOST_NAMES = 500
MOST_BATCHES = 10_000
LONGEST_TEXT = 1_000
SIGNED = ("mean_error_p50", "variance_error_p50", "decay_observed")
"""Rows that may be negative; a negative distance, spread, share or count is not one, and becomes NaN."""
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def parse_evidence(raw: object, layers: int | None = None) -> Evidence:
    """One record of ``bn_lens/evidence``. Unknown fields and rows are ignored.

    Args:
        raw: the JSON text.
        layers: layers that the manifest lists, None where there is none.

    Raises:
        BadRecord: it is no JSON object, a field has another type or shape than ``metadata`` says, or it is larger
            than any record of the lens.
    """
    record = json_object(raw)

    def mapping(name: str) -> Mapping[str, Any]:
        return _mapping(record.get(name, {}), name)

    batches = _mapping(record.get("batches"), "batches")
    steps = _counts(batches.get("steps"), "batches/steps")
    sizes = _counts(batches.get("sizes"), "batches/sizes", len(steps))
    phases = _counts(batches.get("phases", [0] * len(steps)), "batches/phases", len(steps))
    moment = record.get("moment")
    if moment not in MOMENTS:
        raise BadRecord(f"moment is not one of {', '.join(MOMENTS)}")
    rows, count = _rows(mapping("layers"), layers)
    return Evidence(
        step=int(_counts([record.get("step")], "step")[0]),
        moment=str(moment),
        batch_steps=steps,
        batch_sizes=sizes,
        batch_phases=phases,
        earlier=_results(mapping("earlier"), "earlier", sizes),
        passes=_results(mapping("passes"), "passes", sizes),
        validation=_results(mapping("validation"), "validation", sizes),
        samples={name: _figures(figures, f"samples/{name}") for name, figures in mapping("samples").items()},
        layers=rows,
        groups={name: _group(group, count) for name, group in mapping("groups").items()},
        not_evaluated={name: _text(reason) for name, reason in mapping("not_evaluated").items()},
        seconds=_number(record.get("seconds", "NaN"), "seconds"),
    )


def _rows(given: Mapping[str, Any], layers: int | None) -> tuple[dict[str, NDArray[np.float64]], int]:
    """The known rows, each [L], and L, which is ``layers`` where that is known."""
    rows = {row: _row(row, values) for row, values in given.items() if row in EVIDENCE_ROWS}
    lengths = {len(values) for values in rows.values()} | ({layers} if layers is not None and rows else set())
    if len(lengths) > 1:
        raise BadRecord("layers has rows of different lengths, or not one value for each layer")
    return rows, lengths.pop() if lengths else (layers or 0)


def _results(given: Mapping[str, Any], where: str, usual: NDArray[np.int64]) -> dict[str, PassResult]:
    found = {}
    for name, item in given.items():
        body = _mapping(item, f"{where}/{name}")
        losses = _numbers(body.get("losses"), f"{where}/{name}/losses", MOST_BATCHES)
        sizes = usual if "sizes" not in body else _counts(body["sizes"], f"{where}/{name}/sizes")
        if len(sizes) != len(losses) or not np.all(sizes > 0):
            raise BadRecord(f"{where}/{name} has {len(losses)} losses, which are not those of its batches")
        found[name] = PassResult(losses, sizes, _figures(body.get("metrics", {}), f"{where}/{name}/metrics"))
    return found


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadRecord(f"{where} is no JSON object")
    if len(value) > MOST_NAMES or any(len(name) > LONGEST_TEXT for name in value):
        raise BadRecord(f"{where} has more or longer names than any record of the lens")
    return value


def _list(value: object, where: str, most: int) -> Sequence[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise BadRecord(f"{where} is no list of at most {most} values")
    return value


def _counts(value: object, where: str, length: int | None = None) -> NDArray[np.int64]:
    items = _list(value, where, MOST_BATCHES)
    if not all(isinstance(x, int) and not isinstance(x, bool) and 0 <= x <= LARGEST_STEP for x in items):
        raise BadRecord(f"{where} holds something else than counts")
    if length is not None and len(items) != length:
        raise BadRecord(f"{where} has {len(items)} values, not {length}")
    return np.array(items, np.int64)


def _number(value: object, where: str) -> float:
    if isinstance(value, str) and value in NOT_FINITE:
        return NOT_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST_NUMBER:
        raise BadRecord(f"{where} holds something else than numbers")
    return float(value)


def _numbers(value: object, where: str, most: int) -> NDArray[np.float64]:
    return np.array([_number(x, where) for x in _list(value, where, most)], np.float64)


def _row(row: str, values: object) -> NDArray[np.float64]:
    numbers = _numbers(values, f"layers/{row}", MOST_LAYERS)
    return numbers if row in SIGNED else np.where(numbers < 0, np.nan, numbers)


def _figures(value: object, where: str) -> dict[str, float]:
    return {name: _number(x, where) for name, x in _mapping(value, where).items()}


def _group(value: object, layers: int) -> tuple[int, ...]:
    return tuple(int(i) for i in _counts(value, "groups") if i < layers)


def _text(value: object) -> str:
    return value[:LONGEST_TEXT] if isinstance(value, str) else ""
