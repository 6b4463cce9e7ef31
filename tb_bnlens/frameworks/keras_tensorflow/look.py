"""Look at the batches of a ``tf.data`` iterator on its way to the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tb_bnlens.frameworks.keras3.feed import IteratorLook
from tb_bnlens.frameworks.keras3.own_code import KERAS
from tb_bnlens.frameworks.keras_tensorflow.batches import TensorBatches
from tb_bnlens.frameworks.keras_tensorflow.stand_in import StandIn, as_it_is, fits

END_OF_DATA = (StopIteration, tf.errors.OutOfRangeError)


class DatasetLooks:
    """Makes the looks at the data of one train function, and keeps what stands in for its iterator between them.

    Keras' own function takes one batch a step, or as many as ``steps_per_execution``. Any other may take more than
    were seen: then what stands in for its iterator continues with the rest of the data.

    Args:
        function: the train function.
        form: makes tensors of batches that are none.
    """

    def __init__(self, function: Callable[..., Any], form: TensorBatches):
        self._form = form
        self._is_of_keras = _code_of(function).startswith(KERAS)
        self._stand_in: StandIn | None = None
        self._asked: tuple[Any, bool] = None, False

    def __call__(self, data: Any) -> DatasetLook:
        """A look at what a step gets."""
        return DatasetLook(data, self._form, self)

    def can_give_back(self, data: tf.data.Iterator, count: int) -> bool:
        """Whether the step can be given what it would get without the look, whatever it takes."""
        return self._is_of_keras or (count == 1 and self.are_tensors(data.element_spec))

    def are_tensors(self, spec: Any) -> bool:
        """Whether elements of this spec are plain tensors; see ``fits``."""
        if self._asked[0] is not spec:
            self._asked = spec, fits(spec)
        return self._asked[1]

    def give(self, data: tf.data.Iterator, taken: list[Any]) -> Any:
        """An iterator of the same spec that gives these elements, and then what the step may take besides."""
        spec = data.element_spec
        if len(taken) > 1 or not self.are_tensors(spec):
            return _replay(taken, spec)
        rest = None if self._is_of_keras else data
        if self._stand_in is None or not self._stand_in.is_for(spec, rest):
            self._stand_in = StandIn(taken[0], spec, rest)
        return self._stand_in.give(taken[0])


class DatasetLook(IteratorLook):
    """Elements taken from an iterator of a dataset.

    The step's trace is keyed by the element spec of the iterator, so the stand-in has the very same spec, in which
    the batch dimension may be unknown. With another spec the step would be traced again, and round differently.
    """

    def __init__(self, data: Any, form: TensorBatches, looks: DatasetLooks):
        super().__init__(data, form, END_OF_DATA)
        self._looks, self._without_optionals = looks, form.without_optionals

    def batches(self, count: int) -> list[Any]:
        """Up to ``count`` batches, as tensors; none of an iterator to which they could not be given back."""
        if isinstance(self._data, tf.distribute.DistributedIterator):
            return []
        if not isinstance(self._data, tf.data.Iterator):
            return super().batches(count)
        if not self._looks.can_give_back(self._data, count):
            return []
        self.take(count)
        if self.taken:
            # Where it cannot be made, Keras takes the elements from a plain iterator.
            self.given_back = self._looks.give(self._data, self.taken)
        if self._looks.are_tensors(self._data.element_spec):
            return list(self.taken)
        return [self._without_optionals(element) for element in self.taken]


def _replay(elements: list[Any], spec: Any) -> Any:
    dataset = tf.data.Dataset.from_tensors(elements[0])
    for element in elements[1:]:
        dataset = dataset.concatenate(tf.data.Dataset.from_tensors(element))
    return as_it_is(tf.data.experimental.to_variant(dataset), spec)


def _code_of(function: Any) -> str:
    """Module of the Python code that a train function runs, behind what other lenses wrap around it."""
    while hasattr(function, "inner"):
        function = function.inner
    return str(getattr(getattr(function, "python_function", function), "__module__", ""))
