"""TensorFlow checkpoints: of ``tf.train.Checkpoint`` with Keras 3 or 2, and of TensorFlow 1."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from tb_bnlens.importer.saved import (
    LONGEST_VECTOR,
    BadCheckpoint,
    Checkpoint,
    SavedLayer,
    first_line,
    key_order,
    uniquely_named,
)

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
MEAN = re.compile(r"(?:^|/)moving_mean$")
OPTIMIZER_COUNT = re.compile(r"(?:^|/)(?:_iterations|iterations|iter)$")
STEP_VARIABLE = re.compile(r"(?:^|/)(?:global_step|step|iteration)$")


def read_tf(prefix: Path) -> Checkpoint:
    """The checkpoint with this prefix, e.g. ``ckpt-3`` for ``ckpt-3.index`` and its data.

    Raises:
        BadCheckpoint: TensorFlow cannot read it.
    """
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = reader.get_variable_to_shape_map()
        # A claimed size is allocated before it is read.
        keys = {k.removesuffix(SUFFIX): k for k, shape in shapes.items() if math.prod(shape) <= LONGEST_VECTOR}
        names = _names(reader)
        layers = [_layer(reader, keys, key, names) for key in sorted(keys, key=key_order) if MEAN.search(key)]
        count, step = (_largest(reader, keys, pattern) for pattern in (OPTIMIZER_COUNT, STEP_VARIABLE))
        # A model can carry an optimizer that never made a step, beside the loop's own.
        iterations = count if count or step is None else step
        counter = _largest(reader, keys, re.compile(r"^save_counter$"))
    except Exception as error:  # TensorFlow's own, protobuf's and Python's; one file must not cost the others
        raise BadCheckpoint(f"TensorFlow cannot read it ({type(error).__name__}: {first_line(error)})") from error
    return Checkpoint(prefix, uniquely_named(layer for layer in layers if layer is not None), iterations, counter)


def _layer(reader: Any, keys: dict[str, str], mean: str, names: dict[str, str]) -> SavedLayer | None:
    owner = mean[: -len("moving_mean")]
    renorm = owner + "moving_stddev" in keys
    spread = keys.get(owner + ("moving_stddev" if renorm else "moving_variance"))
    if spread is None:
        return None
    # The object graph numbers objects that are no attribute; the variable's full name contains the layer's name.
    name = names.get(keys[mean], mean).removesuffix("moving_mean").strip("/") or "batch_normalization"
    values = [np.asarray(reader.get_tensor(key), np.float64) for key in (keys[mean], spread)]
    return SavedLayer(name, values[0], values[1], renorm)


def _names(reader: Any) -> dict[str, str]:
    """Key -> full name of the variable; empty for checkpoints of TensorFlow 1, whose keys are names."""
    if not reader.has_tensor(GRAPH):
        return {}
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor(GRAPH))
    pairs = ((a.checkpoint_key, a.full_name) for node in graph.nodes for a in node.attributes)
    return {key: name for key, name in pairs if MEAN.search(name)}


def _largest(reader: Any, keys: dict[str, str], pattern: re.Pattern[str]) -> int | None:
    values = [np.asarray(reader.get_tensor(keys[key])) for key in keys if pattern.search(key)]
    return max((int(v) for v in values if v.shape == () and v.dtype.kind in "iu"), default=None)
