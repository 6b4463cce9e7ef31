"""The parts of a record as they are stored: tag, value and plugin of each.

``summary`` writes them as summary ops, and ``capture.events`` to an event file. ``metadata`` describes the values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.history import Evidence, Manifest, PassResult
from tb_bnlens.metadata import (
    CHANNEL_ROWS,
    CHANNELS_PLUGIN_NAME,
    EVIDENCE_TAG,
    LAYER_ROWS,
    LAYERS_TAG,
    LOSS_KINDS,
    LOSS_ROWS,
    LOSSES_TAG,
    MANIFEST_TAG,
    PLUGIN_NAME,
    PROBES,
    channels_tag,
    scalar_tag,
)

Table = NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """One value of a record."""

    tag: str
    value: str | Table
    plugin: str = PLUGIN_NAME


@dataclass(frozen=True)
class Scalar:
    """A number that TensorBoard's own Time Series tab shows."""

    tag: str
    value: float


def manifest(value: Manifest) -> Part:
    """What the recorder says about the run."""
    return Part(MANIFEST_TAG, json.dumps(asdict(value), separators=(",", ":")))


def layers(values: Any) -> Part:
    """One record of all layers: float32 [L, K] in the order of ``metadata.LAYER_ROWS``.

    Raises:
        ValueError: the last dimension is not ``len(LAYER_ROWS)``.
    """
    return Part(LAYERS_TAG, _table("layers", values, LAYER_ROWS))


def losses(values: Any) -> tuple[Part, list[Scalar]]:
    """One probe: float32 [probes, kinds] in the order of ``metadata.PROBES`` and ``LOSS_ROWS``.

    Returns:
        The table, and its paired losses as scalars.

    Raises:
        ValueError: the shape is not ``(len(PROBES), len(LOSS_ROWS))``.
    """
    table = _table("losses", values, LOSS_ROWS)
    if table.shape[0] != len(PROBES):
        raise ValueError(f"losses has {table.shape[0]} rows; expected one for each of {PROBES}")
    scalars = [
        Scalar(scalar_tag(probe, kind), float(table[p, k]))
        for p, probe in enumerate(PROBES)
        for k, kind in enumerate(LOSS_KINDS)
        if np.isfinite(table[p, k])
    ]
    return Part(LOSSES_TAG, table), scalars


def channels(index: int, values: Any) -> Part:
    """A per-channel snapshot of the layer with this index: float32 [4, C] in the order of ``CHANNEL_ROWS``.

    Raises:
        ValueError: the first dimension is not 4.
    """
    table = np.asarray(values, np.float32)
    if table.ndim != 2 or table.shape[0] != len(CHANNEL_ROWS):
        raise ValueError(f"channels has shape {table.shape}; expected ({len(CHANNEL_ROWS)}, C): {CHANNEL_ROWS}")
    return Part(channels_tag(index), table, CHANNELS_PLUGIN_NAME)


def evidence(value: Evidence) -> Part:
    """A measurement on many batches: JSON as ``metadata`` describes it."""
    return Part(EVIDENCE_TAG, json.dumps(_evidence(value), separators=(",", ":"), allow_nan=False))


def empty_losses() -> NDArray[np.float32]:
    """A ``losses`` table in which nothing is measured: NaN, [probes, kinds]."""
    return np.full((len(PROBES), len(LOSS_ROWS)), np.nan, np.float32)


def loss_table(values: Mapping[str, Mapping[str, float]]) -> NDArray[np.float32]:
    """The ``losses`` table for ``{probe: {row: value}}``.

    Raises:
        ValueError: an unknown probe or row.
    """
    table = empty_losses()
    for probe, rows in values.items():
        for row, value in rows.items():
            if probe not in PROBES or row not in LOSS_ROWS:
                raise ValueError(f"{probe}/{row} is not a known loss; probes are {PROBES}, rows {LOSS_ROWS}")
            table[PROBES.index(probe), LOSS_ROWS.index(row)] = value
    return table


def _table(name: str, values: Any, rows: Sequence[str]) -> Table:
    table = np.asarray(values, np.float32)
    if table.ndim != 2 or table.shape[1] != len(rows):
        raise ValueError(f"{name} has shape {table.shape}; expected (n, {len(rows)}), see tb_bnlens.metadata")
    return table


def _evidence(value: Evidence) -> dict[str, Any]:
    """``value`` as JSON: plain lists, and numbers of seven digits."""

    def results(passes: Mapping[str, PassResult]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, result in passes.items():
            found[name] = {"losses": _numbers(result.losses)}
            if not np.array_equal(result.sizes, value.batch_sizes):
                found[name]["sizes"] = result.sizes.tolist()
            if result.metrics:
                found[name]["metrics"] = _by_name(result.metrics)
        return found

    return {
        "step": value.step,
        "moment": value.moment,
        "batches": {
            "steps": value.batch_steps.tolist(),
            "sizes": value.batch_sizes.tolist(),
            "phases": value.batch_phases.tolist(),
        },
        **({"earlier": results(value.earlier)} if value.earlier else {}),
        "passes": results(value.passes),
        "validation": results(value.validation),
        "samples": {name: _by_name(figures) for name, figures in value.samples.items()},
        "layers": {row: _numbers(values) for row, values in value.layers.items()},
        "groups": {name: list(layers) for name, layers in value.groups.items()},
        "not_evaluated": dict(value.not_evaluated),
        "seconds": _number(value.seconds),
    }


def _number(value: float) -> float | str:
    if np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return float(f"{value:.7g}")


def _numbers(values: Any) -> list[float | str]:
    return [_number(float(value)) for value in values]


def _by_name(values: Mapping[str, float]) -> dict[str, float | str]:
    return {name: _number(float(value)) for name, value in values.items()}
