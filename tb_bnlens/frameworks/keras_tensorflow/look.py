"""Look at the batches of a ``tf.data`` iterator on its way to the step."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tb_bnlens.frameworks.keras3.feed import IteratorLook
from tb_bnlens.frameworks.keras_tensorflow.batches import TensorBatches

END_OF_DATA = (StopIteration, tf.errors.OutOfRangeError)


class DatasetLook(IteratorLook):
    """Elements taken from an iterator of a dataset.

    The step's trace is keyed by the element spec of the iterator, so the stand-in has the very same spec, in which
    the batch dimension may be unknown. With another spec the step would be traced again, and round differently.
    """

    def __init__(self, data: Any, form: TensorBatches):
        super().__init__(data, form, END_OF_DATA)
        self._without_optionals = form.without_optionals

    def batches(self, count: int) -> list[Any]:
        """Up to ``count`` batches, as tensors; nothing is taken from a distributed iterator."""
        if isinstance(self._data, tf.distribute.DistributedIterator):
            return []
        if not isinstance(self._data, tf.data.Iterator):
            return super().batches(count)
        self.take(count)
        if self.taken:
            # Where it cannot be made, Keras takes the elements from a plain iterator.
            self.given_back = _replay(self.taken, self._data.element_spec)
        return [self._without_optionals(element) for element in self.taken]


def _as_it_is() -> tf.data.Options:
    # Optimizing and tuning a pipeline of one batch takes three times as long as handing it on.
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    options.autotune.enabled = False
    return options


def _replay(elements: list[Any], spec: Any) -> Any:
    dataset = tf.data.Dataset.from_tensors(elements[0])
    for element in elements[1:]:
        dataset = dataset.concatenate(tf.data.Dataset.from_tensors(element))
    variant = tf.data.experimental.to_variant(dataset)
    return iter(tf.data.experimental.from_variant(variant, spec).with_options(_as_it_is()))
