"""Batches of a Keras model on TensorFlow: taken from the user's data without a side effect, or not at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework import op_def_registry

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.reasons import with_article
from tb_bnlens.frameworks.keras3.batches import KerasBatches

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


class TensorBatches(KerasBatches):
    """What a batch is made of, datasets included."""

    def bytes(self, batch: Any) -> int:
        """Memory that a batch holds."""
        leaves = self.tree.flatten(batch)
        return sum(math.prod(leaf.shape) * leaf.dtype.size for leaf in leaves if isinstance(leaf, tf.Tensor))

    def first(self, data: Any, size: int, most: int) -> list[Any]:
        """The first batches of a dataset too."""
        if isinstance(data, tf.data.Dataset) and not self.side_effect(data):
            return [self.without_optionals(batch) for batch in data.take(most)]
        return super().first(data, size, most)

    def side_effect(self, data: Any) -> str:
        """What taking a batch of this data would do besides, as a sentence; empty where it does nothing."""
        return _of_dataset(data) if isinstance(data, tf.data.Dataset) else super().side_effect(data)

    def tensor(self, leaf: Any) -> Any:
        """A tensor of TensorFlow, ragged and sparse ones as they are."""
        return leaf if isinstance(leaf, tf.RaggedTensor | tf.SparseTensor) else tf.convert_to_tensor(leaf)

    def join(self, leaves: Sequence[Any]) -> Any:
        """Tensors laid end to end."""
        if any(isinstance(leaf, tf.RaggedTensor | tf.SparseTensor) for leaf in leaves):
            raise NotEvaluated("the batches hold ragged or sparse tensors, whose rows are not recombined")
        return tf.concat(leaves, axis=0)

    def rows(self, leaf: Any, chosen: NDArray[np.int64]) -> Any:
        """These rows of a tensor."""
        return tf.gather(leaf, chosen)

    def without_optionals(self, element: Any) -> Any:
        """An element of a dataset as the step gets it: Keras takes each ``tf.experimental.Optional`` as None."""
        return self.tree.map_structure(
            lambda leaf: None if isinstance(leaf, tf.experimental.Optional) else leaf, element
        )


def _of_dataset(data: Any) -> str:
    kind, module = type(data).__name__, type(data).__module__.rpartition(".")[2]
    if module == "shuffle_op":
        return "a second iterator of a shuffled dataset changes the order in which later epochs come"
    if module == "cache_op":
        # A cache in memory is filled by one iterator at a time, so a second one does no harm.
        if bool(data._filename.numpy()):
            return "a second iterator of a dataset that is cached in a file fails or makes the other one fail"
    elif module not in _PURE and kind not in _PURE_WRAPPERS:
        return f"it cannot be told what a second iterator of {with_article(kind)} does"
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
