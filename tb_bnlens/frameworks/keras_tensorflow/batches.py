"""Batches of a Keras model on TensorFlow: taken from the user's data without a side effect, or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework import op_def_registry

from tb_bnlens.capture.errors import NotEvaluated, Refused
from tb_bnlens.moments.moments import Array

EXPECTED = "pass arrays (x, y), a list of batches, or a tf.data.Dataset that neither shuffles nor draws random numbers"
# What a dataset is made of, by the module of TensorFlow that holds the class; other classes may hold anything.
_PURE = set(
    """batch_op cardinality concatenate_op directed_interleave_op filter_op flat_map_op from_sparse_tensor_slices_op
    from_tensor_slices_op from_tensors_op group_by_window_op ignore_errors_op interleave_op map_op padded_batch_op
    prefetch_op ragged_batch_op range_op readers rebatch_op repeat_op scan_op shard_op skip_op sparse_batch_op take_op
    take_while_op unbatch_op unique_op window_op zip_op""".split()
)
_PURE_WRAPPERS = {"_OptionsDataset", "_RestructuredDataset"}
# Ops that TensorFlow calls stateful and that only read, or change nothing by themselves.
_READING = set(
    """AnonymousSeedGenerator Assert Case DummySeedGenerator FixedLengthRecordDataset FixedLengthRecordDatasetV2
    HashTableV2 If LookupTableFindV2 LookupTableSizeV2 PartitionedCall Print PrintV2 RangeDataset ReadVariableOp
    SparseTensorSliceDataset StatefulPartitionedCall TFRecordDataset TFRecordDatasetV2 TensorDataset
    TensorSliceDataset TextLineDataset TextLineDatasetV2 VarHandleOp While""".split()
)


def first_batches(data: Any, size: int, most: int = 1) -> list[Any]:
    """The first batches of a dataset or of a list of batches, or of arrays cut into batches of ``size`` samples.

    Raises:
        Refused: a batch cannot be taken without changing what training gets.
        TypeError: neither of these.
    """
    why = side_effect(data)
    if why:
        raise Refused(f"{why}; {EXPECTED}")
    if isinstance(data, tf.data.Dataset):
        return [without_optionals(batch) for batch in data.take(most)]
    if isinstance(data, list) and data and isinstance(data[0], tuple):
        return [_tensors(batch) for batch in data[:most]]
    if isinstance(data, tuple):
        samples = batch_size(data) or 0
        return [_tensors(data, slice(start, start + size)) for start in range(0, samples, size)[:most]]
    raise TypeError(f"the data is a {type(data).__name__}; {EXPECTED}")


def without_optionals(element: Any) -> Any:
    """An element of a dataset as the step gets it: Keras takes each ``tf.experimental.Optional`` as None."""
    return keras.tree.map_structure(lambda leaf: None if isinstance(leaf, tf.experimental.Optional) else leaf, element)


def _tensors(data: Any, rows: slice = slice(None)) -> Any:
    return keras.tree.map_structure(lambda a: a if a is None else tf.convert_to_tensor(a[rows]), data)


def side_effect(data: Any) -> str:
    """What taking a batch of this data would do besides, as a sentence; empty where it does nothing."""
    if isinstance(data, tf.data.Dataset):
        return _of_dataset(data)
    if isinstance(data, keras.utils.PyDataset):
        return (
            f"indexing a {type(data).__name__} runs user code, which may draw random numbers or keep state; take a "
            "batch yourself before training, e.g. data[0]"
        )
    if isinstance(data, Iterator):
        return f"a {type(data).__name__} gives each batch once, so a look at one would take it away"
    return ""


def _of_dataset(data: Any) -> str:
    kind, module = type(data).__name__, type(data).__module__.rpartition(".")[2]
    if module == "shuffle_op":
        return "a second iterator of a shuffled dataset changes the order in which later epochs come"
    if module == "cache_op":
        # A cache in memory is filled by one iterator at a time, so a second one does no harm.
        if bool(data._filename.numpy()):
            return "a second iterator of a dataset that is cached in a file fails or makes the other one fail"
    elif module not in _PURE and kind not in _PURE_WRAPPERS:
        return f"it cannot be told what a second iterator of a {kind} does"
    for function in data._functions():
        op = _stateful_op(function.function.graph.as_graph_def())
        if op:
            return f"the dataset runs {op}, which keeps state or draws random numbers"
    return next(filter(None, map(_of_dataset, data._inputs())), "")


def _stateful_op(graph: Any) -> str:
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        for node in nodes:
            definition = op_def_registry.get(node.op)
            if node.op not in _READING and (definition is None or definition.is_stateful):
                return str(node.op)
    return ""


class TensorBatches:
    """What a batch is made of; see ``capture.adapter.BatchFormat``."""

    def size(self, batch: Any) -> int | None:
        """The first dimension of its first array; None where it has none."""
        return batch_size(batch)

    def bytes(self, batch: Any) -> int:
        """Memory that a batch holds."""
        return batch_bytes(batch)

    def kind(self, batch: Any) -> Any:
        """Structure of a batch, with the types and ranks of its arrays. Batches of one kind are for one loss."""
        return keras.tree.map_structure(
            lambda leaf: (getattr(leaf, "dtype", None), len(getattr(leaf, "shape", ()))), batch
        )

    def head(self, batch: Any, count: int) -> Any:
        """The first samples of a batch."""
        return keras.tree.map_structure(lambda leaf: leaf if leaf is None else leaf[:count], batch)

    def first(self, data: Any, size: int, most: int) -> list[Any]:
        """See ``first_batches``."""
        return first_batches(data, size, most)


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


def weights(batch: Any) -> Array | None:
    """Sample weights of a batch, [B]; the largest of a row where there are several."""
    _, _, weight = keras.utils.unpack_x_y_sample_weight(batch)
    if weight is None or len(keras.tree.flatten(weight)) != 1:
        return None
    values = np.asarray(keras.tree.flatten(weight)[0])
    return values.reshape(len(values), -1).max(axis=1) if values.ndim else None


def inputs(batch: Any) -> Array | None:
    """Real-valued inputs of a batch, [B, F]; None where there are none."""
    x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
    leaves = [leaf for leaf in keras.tree.flatten(x) if isinstance(leaf, tf.Tensor) and leaf.dtype.is_floating]
    columns = [tf.reshape(tf.cast(leaf, tf.float32), [leaf.shape[0], -1]).numpy() for leaf in leaves]
    return np.concatenate(columns, axis=1) if columns else None


def compose(
    batches: Sequence[Any],
    rows: Sequence[NDArray[np.int64]],
    targets: Sequence[NDArray[np.int64]] | None = None,
) -> list[Any]:
    """New batches of these rows of all batches laid end to end, with the targets of other rows where given."""
    flat = [keras.tree.flatten(batch) for batch in batches]
    columns = list(zip(*flat, strict=True))
    if any(isinstance(leaf, tf.RaggedTensor | tf.SparseTensor) for column in columns for leaf in column):
        raise NotEvaluated("the batches hold ragged or sparse tensors, whose rows are not recombined")
    if any(len({tuple(leaf.shape[1:]) for leaf in column if leaf is not None}) > 1 for column in columns):
        raise NotEvaluated("rows of different batches have different shapes")
    whole = [None if column[0] is None else tf.concat(column, axis=0) for column in columns]

    def composed(chosen: NDArray[np.int64]) -> Any:
        leaves = [None if leaf is None else tf.gather(leaf, chosen) for leaf in whole]
        return keras.tree.pack_sequence_as(batches[0], leaves)

    if targets is None:
        return [composed(chosen) for chosen in rows]
    mixed = []
    for chosen, others in zip(rows, targets, strict=True):
        (x, _, weight), (_, y, _) = (keras.utils.unpack_x_y_sample_weight(composed(r)) for r in (chosen, others))
        if y is None:
            raise NotEvaluated("the batches hold no targets")
        mixed.append((x, y) if weight is None else (x, y, weight))
    return mixed
