"""Look at the batches of a ``tf.data`` iterator on its way to the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.frameworks.keras3.feed import NO_LOOK, IteratorLook
from tb_bnlens.frameworks.keras3.own_code import KERAS
from tb_bnlens.frameworks.keras_tensorflow.batches import TensorBatches
from tb_bnlens.frameworks.keras_tensorflow.stand_in import Elements, StandIn, as_it_is

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
        self._met: Elements | None = None

    def __call__(self, data: Any) -> DatasetLook:
        """A look at what a step gets."""
        return DatasetLook(data, self._form, self)

    def can_give_back(self, data: tf.data.Iterator, count: int) -> bool:
        """Whether the step can be given what it would get without the look, whatever it takes."""
        return self._is_of_keras or (count == 1 and self.elements_of(data).are_tensors)

    def elements_of(self, data: tf.data.Iterator) -> Elements:
        """What the elements of an iterator are."""
        spec = data.element_spec
        if self._met is None or self._met.spec is not spec:
            self._met = Elements(spec)
        return self._met

    def can_give_back_distributed(self, data: Any) -> bool:
        """The same for the iterator of a strategy, whose values are plain tensors if it has one replica."""
        return self._is_of_keras and has_one_replica(data._strategy)

    def give(self, data: tf.data.Iterator, taken: list[Any]) -> Any:
        """An iterator of the same spec that gives these elements, and then what the step may take besides."""
        elements = self.elements_of(data)
        if len(taken) > 1 or not elements.are_tensors:
            return _replay(taken, elements.spec)
        rest = None if self._is_of_keras else data
        if self._stand_in is None or not self._stand_in.is_for(elements.spec, rest):
            self._stand_in = StandIn(taken[0], elements, rest)
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
        """Up to ``count`` batches, as tensors.

        Raises:
            NotEvaluated: they could not be given back to the iterator.
        """
        if isinstance(self._data, tf.distribute.DistributedIterator):
            possible, give = self._looks.can_give_back_distributed(self._data), _distributed
            why = f"training runs under {strategy_name(self._data._strategy)}"
        elif isinstance(self._data, tf.data.Iterator):
            possible, give = self._looks.can_give_back(self._data, count), self._looks.give
            why = "train_function is not Keras' own and may take more batches than one"
        else:
            return super().batches(count)
        if not possible:
            raise NotEvaluated(NO_LOOK.format(why))
        self.take(count)
        if self.taken:
            # Where it cannot be made, Keras takes the elements from a plain iterator.
            self.given_back = give(self._data, self.taken)
        if self._looks.elements_of(self._data).are_tensors:
            return list(self.taken)
        return [self._without_optionals(element) for element in self.taken]

    def _source(self) -> tuple[Callable[[], Any], Callable[[Any], Any] | None]:
        resource = getattr(self._data, "_iterator_resource", None)
        # An asynchronous op would tell the end of the data later.
        if resource is not None and tf.config.experimental.get_synchronous_execution():
            elements = self._looks.elements_of(self._data)
            if elements.are_tensors:
                return elements.source(resource)
        return super()._source()


def _replay(elements: list[Any], spec: Any) -> Any:
    return as_it_is(_variant(elements), spec)


def _distributed(data: Any, taken: list[Any]) -> Any:
    """An iterator of the same strategy and spec that gives these elements."""
    dataset = tf.data.experimental.from_variant(_variant(taken), data.element_spec)
    if data._cardinality == tf.data.INFINITE_CARDINALITY:
        dataset = dataset.repeat()  # a step on data without an end does not look for one, and is traced so
    return iter(data._strategy.experimental_distribute_dataset(dataset))


def _variant(elements: list[Any]) -> Any:
    dataset = tf.data.Dataset.from_tensors(elements[0])
    for element in elements[1:]:
        dataset = dataset.concatenate(tf.data.Dataset.from_tensors(element))
    return tf.data.experimental.to_variant(dataset)


def has_one_replica(strategy: Any) -> bool:
    """Whether a strategy runs the step once, in this process, on batches that are plain tensors."""
    known = (tf.distribute.MirroredStrategy, tf.distribute.OneDeviceStrategy)
    return isinstance(strategy, known) and strategy.num_replicas_in_sync == 1


def strategy_name(strategy: Any) -> str:
    """A strategy, for a sentence."""
    return f"a distribution strategy ({type(strategy).__name__}, replicas: {strategy.num_replicas_in_sync})"


def _code_of(function: Any) -> str:
    """Module of the Python code that a train function runs, behind what other lenses wrap around it."""
    while hasattr(function, "inner"):
        function = function.inner
    return str(getattr(getattr(function, "python_function", function), "__module__", ""))
