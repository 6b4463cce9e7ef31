"""Batches of a Keras model: nested arrays, whatever the backend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.errors import NotEvaluated, Refused
from tb_bnlens.capture.reasons import what_is
from tb_bnlens.frameworks.keras3.library import Library
from tb_bnlens.moments.moments import Array


class KerasBatches:
    """What a batch is made of; see ``capture.adapter.BatchFormat``.

    Args:
        library: whose arrays they are.
        expected: what to pass as data, for the message where something else came.
    """

    def __init__(self, library: Library, expected: str):
        self.library, self.tree, self._expected = library, library.tree, expected

    def size(self, batch: Any) -> int | None:
        """The first dimension of its first array; None where it has none."""
        for leaf in self.tree.flatten(batch):
            shape = getattr(leaf, "shape", None)
            if shape is not None and len(shape) and shape[0] is not None:
                return int(shape[0])
        return None

    def bytes(self, batch: Any) -> int:
        """Memory that a batch holds."""
        return sum(int(getattr(leaf, "nbytes", 0)) for leaf in self.tree.flatten(batch))

    def targets(self, batch: Any) -> list[NDArray[Any]]:
        """The tensors of ``y``; none where one is ragged or sparse."""
        _, y, _ = self.library.unpacked(batch)
        leaves = self.tree.flatten(y)
        plain = all(self.library.is_plain(leaf) or isinstance(leaf, np.ndarray) for leaf in leaves)
        return [self.library.host_known(leaf) for leaf in leaves] if plain else []

    def kind(self, batch: Any) -> Any:
        """Structure of a batch, with the types and ranks of its arrays. Batches of one kind are for one loss."""
        return self.tree.map_structure(
            lambda leaf: (getattr(leaf, "dtype", None), len(getattr(leaf, "shape", ()))), batch
        )

    def head(self, batch: Any, count: int) -> Any:
        """The first samples of a batch."""
        return self.tree.map_structure(lambda leaf: leaf if leaf is None else leaf[:count], batch)

    def copied(self, batch: Any) -> Any:
        """The batch with copies of its NumPy arrays."""
        return self.tree.map_structure(lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, batch)

    def first(self, data: Any, size: int, most: int) -> list[Any]:
        """The first batches of a list of batches, or of arrays cut into batches of ``size`` samples.

        Raises:
            Refused: a batch cannot be taken without changing what training gets.
            TypeError: neither of these.
        """
        why = self.side_effect(data)
        if why:
            raise Refused(f"{why}; {self._expected}")
        if isinstance(data, list) and data and isinstance(data[0], tuple):
            return [self._tensors(batch) for batch in data[:most]]
        if isinstance(data, tuple):
            samples = self.size(data) or 0
            return [self._tensors(data, slice(start, start + size)) for start in range(0, samples, size)[:most]]
        raise TypeError(f"the data is {what_is(data)}; {self._expected}")

    def side_effect(self, data: Any) -> str:
        """What taking a batch of this data would do besides, as a sentence; empty where it does nothing."""
        if isinstance(data, self.library.sequence):
            return (
                f"indexing {what_is(data)} runs user code, which may draw random numbers or keep state; take a "
                "batch yourself before training, e.g. data[0]"
            )
        if _is_a(data, "DataLoader", "torch."):
            return "reading a DataLoader of PyTorch draws random numbers, and its dataset may keep state"
        if is_dataset(data):
            return "it cannot be told on this backend what a second iterator of a tf.data.Dataset does"
        if isinstance(data, Iterator):
            return f"{what_is(data)} gives each batch once, so a look at one would take it away"
        return ""

    def length(self, data: Any) -> int | None:
        """Batches in what gives them by index; None where they never end."""
        # A Sequence of Keras 2 has a length and no other number.
        count = data.num_batches if hasattr(data, "num_batches") else len(data)
        return None if count is None else int(count)

    def tensor(self, leaf: Any) -> Any:
        """An array as the model takes it."""
        # A copy: the user may write to an array, and some backends share its memory.
        return leaf if self.library.ops.is_tensor(leaf) else self.library.ops.convert_to_tensor(np.array(leaf))

    def join(self, leaves: Sequence[Any]) -> Any:
        """Tensors laid end to end.

        Raises:
            NotEvaluated: their kind does not allow it.
        """
        return self.library.ops.concatenate(leaves)

    def rows(self, leaf: Any, chosen: NDArray[np.int64]) -> Any:
        """These rows of a tensor."""
        return self.library.ops.take(leaf, chosen, axis=0)

    def weights(self, batch: Any) -> Array | None:
        """Sample weights of a batch, [B]; the largest of a row where there are several."""
        _, _, weight = self.library.unpacked(batch)
        if weight is None or len(self.tree.flatten(weight)) != 1:
            return None
        values = self.library.host(self.tree.flatten(weight)[0])
        return values.reshape(len(values), -1).max(axis=1) if values.ndim else None

    def inputs(self, batch: Any) -> Array | None:
        """Real-valued inputs of a batch, [B, F]; None where there are none."""
        x, _, _ = self.library.unpacked(batch)
        leaves = [leaf for leaf in self.tree.flatten(x) if self.library.is_plain(leaf) and "float" in str(leaf.dtype)]
        columns = [self.library.host(leaf).astype(np.float32).reshape(leaf.shape[0], -1) for leaf in leaves]
        return np.concatenate(columns, axis=1) if columns else None

    def compose(
        self,
        batches: Sequence[Any],
        rows: Sequence[NDArray[np.int64]],
        targets: Sequence[NDArray[np.int64]] | None = None,
    ) -> list[Any]:
        """New batches of these rows of all batches laid end to end, with the targets of other rows where given."""
        columns = list(zip(*(self.tree.flatten(batch) for batch in batches), strict=True))
        if any(len({tuple(leaf.shape[1:]) for leaf in column if leaf is not None}) > 1 for column in columns):
            raise NotEvaluated("rows of different batches have different shapes")
        whole = [None if column[0] is None else self.join(column) for column in columns]

        def composed(chosen: NDArray[np.int64]) -> Any:
            leaves = [None if leaf is None else self.rows(leaf, chosen) for leaf in whole]
            return self.tree.pack_sequence_as(batches[0], leaves)

        if targets is None:
            return [composed(chosen) for chosen in rows]
        mixed = []
        for chosen, others in zip(rows, targets, strict=True):
            (x, _, weight), (_, y, _) = (self.library.unpacked(composed(r)) for r in (chosen, others))
            if y is None:
                raise NotEvaluated("the batches hold no targets")
            mixed.append((x, y) if weight is None else (x, y, weight))
        return mixed

    def _tensors(self, data: Any, rows: slice = slice(None)) -> Any:
        return self.tree.map_structure(lambda a: a if a is None else self.tensor(a[rows]), data)


def is_dataset(data: Any) -> bool:
    """Whether this is a ``tf.data.Dataset``; TensorFlow is not loaded to tell."""
    return _is_a(data, "DatasetV2", "tensorflow.")


def _is_a(data: Any, name: str, package: str) -> bool:
    """Whether a class of this package, which is not loaded to tell, is among those of the data."""
    return any(base.__name__ == name and base.__module__.startswith(package) for base in type(data).__mro__)
