"""Summary ops: write one part of a record to the default TensorBoard writer, or to a given one.

They are ``tf.summary.write`` calls with the plugin's metadata, usable alone inside
``tf.summary.create_file_writer(...).as_default()``. They write from outside the training step: a summary op
inside a step fails under ``jit_compile=True``. The data on disk is described in ``tb_bnlens.metadata`` and is
supported for good.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import tensorflow as tf

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
    plugin_content,
    scalar_tag,
)


def manifest(value: Manifest, step: int) -> bool:
    """Write what the recorder says about the run: layers, plan, notes, events so far.

    Returns:
        Whether it was written, as ``tf.summary.write`` does (False without a default writer).
    """
    text = json.dumps(asdict(value), separators=(",", ":"))
    return _write(MANIFEST_TAG, tf.constant(text), step)


def layers(values: Any, step: int) -> bool:
    """Write one record of all layers: float32 [L, K] in the order of ``metadata.LAYER_ROWS``.

    Raises:
        ValueError: the last dimension is not ``len(LAYER_ROWS)``.
    """
    return _write(LAYERS_TAG, _table("layers", values, LAYER_ROWS), step)


def losses(values: Any, step: int) -> bool:
    """Write one probe: float32 [probes, kinds] in the order of ``metadata.PROBES`` and ``LOSS_ROWS``.

    The paired losses are written again as plain scalars, for TensorBoard's own Time Series tab.

    Raises:
        ValueError: the shape is not ``(len(PROBES), len(LOSS_ROWS))``.
    """
    table = _table("losses", values, LOSS_ROWS)
    if table.shape[0] != len(PROBES):
        raise ValueError(f"losses has {table.shape[0]} rows; expected one for each of {PROBES}")
    written = _write(LOSSES_TAG, table, step)
    for p, probe in enumerate(PROBES):
        for k, kind in enumerate(LOSS_KINDS):
            if np.isfinite(table[p, k]):
                tf.summary.scalar(scalar_tag(probe, kind), table[p, k], step=step)
    return written


def evidence(value: Evidence, step: int) -> bool:
    """Write a measurement on many batches: JSON as ``metadata`` describes it."""
    text = json.dumps(_evidence_json(value), separators=(",", ":"), allow_nan=False)
    return _write(EVIDENCE_TAG, tf.constant(text), step)


def _evidence_json(value: Evidence) -> dict[str, Any]:
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


def channels(index: int, values: Any, step: int) -> bool:
    """Write a per-channel snapshot of the layer with this index: float32 [4, C] in the order of ``CHANNEL_ROWS``.

    Raises:
        ValueError: the first dimension is not 4.
    """
    table = np.asarray(values, np.float32)
    if table.ndim != 2 or table.shape[0] != len(CHANNEL_ROWS):
        raise ValueError(f"channels has shape {table.shape}; expected ({len(CHANNEL_ROWS)}, C): {CHANNEL_ROWS}")
    return _write(channels_tag(index), table, step, plugin=CHANNELS_PLUGIN_NAME)


def empty_losses() -> np.ndarray[Any, np.dtype[np.float32]]:
    """A ``losses`` table in which nothing is measured: NaN, [probes, kinds]."""
    return np.full((len(PROBES), len(LOSS_ROWS)), np.nan, np.float32)


def loss_table(values: Mapping[str, Mapping[str, float]]) -> np.ndarray[Any, np.dtype[np.float32]]:
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


def _table(name: str, values: Any, rows: tuple[str, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    table = np.asarray(values, np.float32)
    if table.ndim != 2 or table.shape[1] != len(rows):
        raise ValueError(f"{name} has shape {table.shape}; expected (n, {len(rows)}), see tb_bnlens.metadata")
    return table


def _write(tag: str, tensor: Any, step: int, plugin: str = PLUGIN_NAME) -> bool:
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = plugin
    metadata.plugin_data.content = plugin_content()
    # The class is what makes TensorBoard keep the data and count it against our own sampling cap.
    metadata.data_class = 2  # DATA_CLASS_TENSOR; the enum has no public name in TensorFlow
    return bool(tf.summary.write(tag=tag, tensor=tensor, step=step, metadata=metadata))
