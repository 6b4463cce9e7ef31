"""Batches of the user's data for a check: some, spread over the data, and no more read than that takes."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from tb_bnlens.capture.reasons import what_is
from tb_bnlens.capture.spread import READ, drawn_rows, require_iterable
from tb_bnlens.frameworks.keras3.batches import KerasBatches, is_dataset

EXPECTED = "a tf.data.Dataset, a PyDataset, arrays (x, y), or an iterable of batches"
INFINITE, UNKNOWN = -1, -2
"""Cardinalities of a dataset."""
MOST_BYTES = 512 * 2**20
"""Memory that the batches of a check may take."""


def spread_batches(form: KerasBatches, data: Any, most: int, batch_size: int) -> list[Any]:
    """At most so many batches of any data that ``fit`` accepts, as tensors.

    Rows of arrays are drawn at random, as ``fit`` shuffles them. Batches of a list, a ``PyDataset`` or a dataset of
    known length are spread evenly over it, and those of a dataset of unknown length over what is read of it.
    Iterators and endless data give their first batches.

    Args:
        form: of the model's batches.
        data: arrays ``x`` or ``(x, y, sample_weight)``, or anything that gives batches of them.
        most: batches wanted; fewer where there are no more, or where they take more than ``MOST_BYTES``.
        batch_size: of batches cut from arrays.

    Raises:
        TypeError: the data is nothing of this kind.
        ValueError: it holds no batch.
    """
    found = [_tensors(form, batch) for batch in _source(form, data, most, batch_size)]
    if not found:
        raise ValueError(f"data holds no batch; pass {EXPECTED}")
    room = max(MOST_BYTES // max(max(map(form.bytes, found)), 1), 1)
    return [found[i] for i in _even(len(found), room)]


def _source(form: KerasBatches, data: Any, most: int, batch_size: int) -> Iterable[Any]:
    if isinstance(data, form.library.sequence):
        length = form.length(data)
        return (data[i] for i in (range(most) if length is None else _even(int(length), most)))
    if is_dataset(data):
        return _of_dataset(data, most)
    if isinstance(data, list):
        require_iterable(data, EXPECTED)
        return [data[i] for i in _even(len(data), most)]
    leaves = [leaf for leaf in form.tree.flatten(data) if leaf is not None]
    if isinstance(data, Iterator) or (not leaves or not all(hasattr(leaf, "shape") for leaf in leaves)):
        if not isinstance(data, Iterable) or isinstance(data, str | bytes | dict):
            raise TypeError(f"data is {what_is(data)}; pass {EXPECTED}")
        return islice(data, most)
    return _of_arrays(form, data, most, batch_size)


def _of_dataset(data: Any, most: int) -> Iterable[Any]:
    length = int(data.cardinality())
    if length == INFINITE:
        first: Iterable[Any] = data.take(most)
        return first
    if length == UNKNOWN:
        return _thinned(data.take(READ * most), most)
    wanted = set(_even(min(length, READ * most), most))
    # Reading stops after the last one.
    return (batch for i, batch in enumerate(data.take(max(wanted) + 1)) if i in wanted) if wanted else ()


def _thinned(source: Iterable[Any], most: int) -> list[Any]:
    """Every n-th of the source, for the least power of two n that leaves no more than wanted."""
    kept: list[Any] = []
    every = 1
    for i, batch in enumerate(source):
        if i % every == 0:
            kept.append(batch)
            if len(kept) > most:
                kept, every = kept[::2], 2 * every
    return kept


def _even(count: int, most: int) -> list[int]:
    """At most so many of ``count`` indices, spread evenly."""
    wanted = min(count, most)
    return [i * count // wanted for i in range(wanted)]


def _of_arrays(form: KerasBatches, data: Any, most: int, batch_size: int) -> Iterator[Any]:
    as_array: Callable[[Any], Any] = np.asarray
    arrays = _mapped(form, as_array, data)
    samples = {len(leaf) for leaf in form.tree.flatten(arrays) if leaf is not None}
    if len(samples) != 1:
        raise ValueError(f"the arrays of data have different numbers of rows: {sorted(samples)}")
    for rows in islice(drawn_rows(samples.pop(), batch_size), most):
        yield _mapped(form, operator.itemgetter(np.sort(rows)), arrays)


def _tensors(form: KerasBatches, batch: Any) -> Any:
    # A tuple stands for (x, y, sample_weight), also where a generator gives a list.
    return _mapped(form, functools.partial(_tensor, form), tuple(batch) if isinstance(batch, list) else batch)


def _tensor(form: KerasBatches, leaf: Any) -> Any:
    if not isinstance(leaf, np.ndarray) and hasattr(leaf, "dtype"):
        return form.tensor(leaf)
    array = np.asarray(leaf)
    # As fit does.
    return form.tensor(array.astype(form.library.keras.backend.floatx()) if array.dtype == np.float64 else array)


def _mapped(form: KerasBatches, function: Callable[[Any], Any], batch: Any) -> Any:
    return form.tree.map_structure(lambda leaf: None if leaf is None else function(leaf), batch)
