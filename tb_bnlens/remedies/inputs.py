"""The inputs of a model, batch by batch, from any data that ``fit`` accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from tb_bnlens.frameworks.keras3.batches import KerasBatches, is_dataset

SHUFFLE_SEED = 0
"""Arrays are shuffled, as in ``fit``, with a fixed seed so that the result is reproducible."""


def input_batches(form: KerasBatches, data: Any, batches: int, batch_size: int) -> Iterator[Any]:
    """``(x,)`` of up to ``batches`` batches, as tensors."""
    source: Iterable[Any]
    if isinstance(data, form.library.sequence):
        # A PyDataset without __len__ never ends.
        length = form.length(data)
        source = (data[i] for i in range(batches if length is None else min(batches, int(length))))
    elif is_dataset(data) or isinstance(data, Iterator) or not _is_arrays(form, data):
        source = data
    else:
        source = _cut(form, _inputs(data), batch_size)
    for _, batch in zip(range(batches), source, strict=False):
        yield (form.tree.map_structure(form.tensor, _inputs(batch)),)


def _is_arrays(form: KerasBatches, data: Any) -> bool:
    if isinstance(data, list) and any(isinstance(item, tuple) for item in data):
        return False  # batches (x, y); a list of arrays is a model's several inputs
    return all(hasattr(leaf, "shape") for leaf in form.tree.flatten(data))


def _inputs(data: Any) -> Any:
    return data[0] if isinstance(data, tuple) else data


def _cut(form: KerasBatches, x: Any, size: int) -> Iterator[Any]:
    samples = int(form.tree.flatten(x)[0].shape[0])
    order = np.random.default_rng(SHUFFLE_SEED).permutation(samples)
    take: Callable[[Any], Any] = np.asarray
    arrays = form.tree.map_structure(take, x)
    for start in range(0, samples, size):
        chosen = order[start : start + size]
        yield form.tree.map_structure(lambda a, chosen=chosen: a[chosen], arrays)
