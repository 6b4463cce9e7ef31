"""What a batch is made of in flax: a tree of NumPy or JAX arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.errors import NotEvaluated, Refused
from tb_bnlens.capture.reasons import what_is
from tb_bnlens.capture.spread import drawn_rows, require_iterable
from tb_bnlens.capture.spread import spread as spread_over
from tb_bnlens.moments.moments import Array

WHILE_TRAINING = "a list of batches (x, y), or arrays (x, y)"
EXPECTED = f"an iterable of batches (x, y), {WHILE_TRAINING}"


class Batch(NamedTuple):
    """One batch as the model and the loss get it; a tree for JAX."""

    x: Any
    """The model's input: an array, a tuple of its arguments, or any other tree."""
    y: Any = None
    """The loss' target."""


def samples(batch: Any) -> int | None:
    """The first dimension of the first array that has one; None where none has."""
    return next((int(leaf.shape[0]) for leaf in _arrays(batch) if leaf.ndim), None)


def _arrays(batch: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(batch) if hasattr(leaf, "ndim")]


class FlaxBatches:
    """See ``capture.adapter.BatchFormat``."""

    def size(self, batch: Any) -> int | None:
        """Samples in a batch."""
        return samples(batch)

    def bytes(self, batch: Any) -> int:
        """Memory that a batch holds."""
        return sum(int(leaf.nbytes) for leaf in _arrays(batch))

    def targets(self, batch: Any) -> list[NDArray[Any]]:
        """The arrays of ``y``."""
        return [np.asarray(leaf) for leaf in _arrays(packed(batch).y)]

    def kind(self, batch: Any) -> Any:
        """The structure, and the types and ranks of its arrays."""
        return jax.tree.structure(batch), tuple((str(leaf.dtype), leaf.ndim) for leaf in _arrays(batch))

    def head(self, batch: Any, count: int) -> Any:
        """The first samples of a batch."""
        size = samples(batch)
        return jax.tree.map(lambda leaf: leaf[:count] if np.ndim(leaf) and leaf.shape[0] == size else leaf, batch)

    def copied(self, batch: Any) -> Any:
        """The batch with copies of NumPy arrays; those of JAX cannot change."""
        return jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, batch)

    def first(self, data: Any, size: int, most: int) -> list[Any]:
        """The first batches of a list, or arrays cut into batches; see ``capture.adapter``.

        Raises:
            Refused: it is a loader, which may draw random numbers or use up batches that training wants.
        """
        if not _is_arrays(data) and not isinstance(data, Sequence):
            raise Refused(f"reading {what_is(data)} could change what training gets; pass {WHILE_TRAINING}")
        return list(islice(batches_of(data, size), most))


def packed(batch: Any) -> Batch:
    """A batch as data gives it: ``(x, y)``, or ``x`` alone.

    Raises:
        TypeError: it is a tuple or list of more than two.
    """
    if isinstance(batch, Batch):
        return batch
    if isinstance(batch, tuple | list) and len(batch) <= 2:
        return Batch(*batch)
    if isinstance(batch, tuple | list):
        raise TypeError(f"a batch is {what_is(batch)} of {len(batch)}; expected (x, y), or x alone")
    return Batch(batch)


def batches_of(data: Any, size: int) -> Iterator[Batch]:
    """The batches of an iterable, or arrays cut into batches of ``size`` samples.

    Raises:
        TypeError: it is no data.
    """
    if _is_arrays(data):
        whole = packed(data)
        for start in range(0, samples(whole) or 0, size):
            yield _rows(whole, slice(start, start + size))
    else:
        require_iterable(data, EXPECTED)
        yield from (packed(batch) for batch in data)


def spread(data: Any, most: int, size: int) -> list[Batch]:
    """At most so many batches of data, spread over it; rows of arrays are drawn at random.

    Args:
        data: an iterable of batches, or arrays ``x`` or ``(x, y)``.
        most: batches wanted. At most ``spread.READ`` times as many are read.
        size: of batches cut from arrays.

    Raises:
        TypeError: it is no data.
        ValueError: there is no batch in it.
    """
    if _is_arrays(data):
        whole = packed(data)
        data = [_rows(whole, rows) for rows in drawn_rows(samples(whole) or 0, size)]
    require_iterable(data, EXPECTED)
    found = [packed(batch) for batch in spread_over(data, most)]
    if not found:
        raise ValueError("data gave no batch")
    return found


def inputs(batch: Batch) -> Array | None:
    """Real-valued inputs of a batch, [B, F]; None where there are none."""
    real = [leaf for leaf in _arrays(batch.x) if np.issubdtype(leaf.dtype, np.floating) and leaf.ndim]
    columns = [np.asarray(leaf, np.float32).reshape(len(leaf), -1) for leaf in real]
    if len({len(column) for column in columns}) != 1:
        return None
    return np.concatenate(columns, axis=1)


def compose(
    batches: Sequence[Any],
    rows: Sequence[NDArray[np.int64]],
    targets: Sequence[NDArray[np.int64]] | None = None,
) -> list[Any]:
    """New batches of these rows of all batches laid end to end, with the targets of other rows where given.

    Raises:
        NotEvaluated: rows of different batches have different shapes, an array has no row for each sample, or there are
            no targets to exchange.
    """
    for batch in batches:
        if len({leaf.shape[0] if leaf.ndim else None for leaf in _arrays(batch)}) > 1:
            raise NotEvaluated("the batches hold arrays without a row for each sample")
    try:
        whole = jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves]), *batches)
    except ValueError as error:
        raise NotEvaluated("rows of different batches have different shapes") from error
    if targets is None:
        return [_rows(whole, chosen) for chosen in rows]
    if whole.y is None:
        raise NotEvaluated("the batches hold no targets")
    return [Batch(_rows(whole.x, chosen), _rows(whole.y, other)) for chosen, other in zip(rows, targets, strict=True)]


def _rows(batch: Any, rows: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[rows], batch)


def _is_arrays(data: Any) -> bool:
    """Whether it is ``x`` or ``(x, y)``, of arrays."""
    parts = data if isinstance(data, tuple) and len(data) <= 2 else (data,)
    return all(hasattr(part, "ndim") and hasattr(part, "dtype") for part in parts)
