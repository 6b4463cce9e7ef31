"""Summary ops: write one part of a record to the default TensorBoard writer, or to a given one.

They are ``tf.summary.write`` calls with the plugin's metadata, usable alone inside
``tf.summary.create_file_writer(...).as_default()``. They write from outside the training step: a summary op
inside a step fails under ``jit_compile=True``. The data on disk is described in ``tb_bnlens.metadata`` and is
supported in every later version.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tb_bnlens import record
from tb_bnlens.history import Evidence, Manifest
from tb_bnlens.metadata import plugin_content
from tb_bnlens.record import empty_losses as empty_losses
from tb_bnlens.record import loss_table as loss_table


def manifest(value: Manifest, step: int) -> bool:
    """Write what the recorder says about the run: layers, plan, notes, events so far.

    Returns:
        Whether it was written, as ``tf.summary.write`` does (False without a default writer).
    """
    return _write(record.manifest(value), step)


def layers(values: Any, step: int) -> bool:
    """Write one record of all layers: float32 [L, K] in the order of ``metadata.LAYER_ROWS``.

    Raises:
        ValueError: the last dimension is not ``len(LAYER_ROWS)``.
    """
    return _write(record.layers(values), step)


def losses(values: Any, step: int) -> bool:
    """Write one probe: float32 [probes, kinds] in the order of ``metadata.PROBES`` and ``LOSS_ROWS``.

    The paired losses are written again as plain scalars, for TensorBoard's own Time Series tab.

    Raises:
        ValueError: the shape is not ``(len(PROBES), len(LOSS_ROWS))``.
    """
    table, scalars = record.losses(values)
    written = _write(table, step)
    for scalar in scalars:
        tf.summary.scalar(scalar.tag, scalar.value, step=step)
    return written


def evidence(value: Evidence, step: int) -> bool:
    """Write a measurement on many batches: JSON as ``metadata`` describes it."""
    return _write(record.evidence(value), step)


def channels(index: int, values: Any, step: int) -> bool:
    """Write a per-channel snapshot of the layer with this index: float32 [4, C] in the order of ``CHANNEL_ROWS``.

    Raises:
        ValueError: the first dimension is not 4.
    """
    return _write(record.channels(index, values), step)


def _write(part: record.Part, step: int) -> bool:
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = part.plugin
    metadata.plugin_data.content = plugin_content()
    # The class is what makes TensorBoard keep the data and count it against our own sampling cap.
    metadata.data_class = 2  # DATA_CLASS_TENSOR; the enum has no public name in TensorFlow
    return bool(tf.summary.write(tag=part.tag, tensor=part.value, step=step, metadata=metadata))
