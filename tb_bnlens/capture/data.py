"""Data that the user passes to be probed: one batch of it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf


def first_batches(data: Any, size: int, most: int = 1) -> list[Any]:
    """The first batches of a dataset, or of arrays cut into batches of ``size`` samples, as tensors.

    Raises:
        TypeError: neither ``(x, y)``, a ``tf.data.Dataset`` nor a ``keras.utils.PyDataset``.
    """
    if isinstance(data, tf.data.Dataset):
        return list(data.take(most))
    if isinstance(data, keras.utils.PyDataset):
        return [keras.tree.map_structure(tf.convert_to_tensor, data[i]) for i in range(min(most, len(data)))]
    if isinstance(data, tuple):
        samples = batch_size(data) or 0

        def cut(start: int) -> Any:
            return keras.tree.map_structure(lambda a: tf.convert_to_tensor(a[start : start + size]), data)

        return [cut(start) for start in range(0, samples, size)[:most]]
    raise TypeError(f"data is a {type(data).__name__}; expected (x, y), a tf.data.Dataset or a keras PyDataset")


def batch_size(batch: Any) -> int | None:
    """Samples in a batch: the first dimension of its first array; None where it has none."""
    for leaf in keras.tree.flatten(batch):
        shape = getattr(leaf, "shape", None)
        if shape is not None and len(shape) and shape[0] is not None:
            return int(shape[0])
    return None


def batch_bytes(batch: Any) -> int:
    """Memory that a batch holds, in bytes."""
    leaves = keras.tree.flatten(batch)
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.size for leaf in leaves if isinstance(leaf, tf.Tensor))


def is_chief() -> bool:
    """Whether this process is the one that writes, in multi-worker training."""
    resolver = getattr(tf.distribute.get_strategy(), "cluster_resolver", None)
    if resolver is None or resolver.task_type is None:
        return True
    return bool(resolver.task_type == "chief" or (resolver.task_type == "worker" and resolver.task_id == 0))
