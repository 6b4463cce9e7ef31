"""Look at the training batch on its way to the step: a wrapper of the model's ``train_function``."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import keras
import tensorflow as tf

from tb_bnlens.frameworks.keras_tensorflow.batches import without_optionals


class Observer(Protocol):
    """What ``PeekingTrainFunction`` tells of a step. Where a method raises, the step is still made."""

    def expects_step(self) -> bool:
        """Whether this call is a step of the observed ``fit``."""

    def before_step(self, look: Look) -> None:
        """The step is about to be made on what can be looked at."""

    def after_step(self, logs: Any, seen: int) -> None:
        """The step is made; so many of its batches were looked at."""

    def failed(self, error: BaseException) -> None:
        """The step itself raised."""

    def fault(self, error: Exception) -> None:
        """One of the other methods raised."""


class PeekingTrainFunction:
    """Stands in for ``model.train_function`` during one ``fit``.

    Args:
        inner: the function that ``fit`` would call.
        observer: the lens; None makes this a plain call of ``inner``.
    """

    def __init__(self, inner: Callable[[Any], Any], observer: Observer | None):
        self.inner, self.observer = inner, observer

    def __call__(self, iterator: Any) -> Any:
        """Make the step, as ``inner`` does, with the observer looking on."""
        observer = self.observer
        if observer is None:
            return self.inner(iterator)
        expected, look = False, None
        try:
            expected = observer.expects_step()
            if expected:
                look = Look(iterator)
                observer.before_step(look)
        except Exception as error:
            observer.fault(error)
        try:
            logs = self.inner(iterator if look is None else look.given_back())
        except BaseException as error:
            if expected:
                with contextlib.suppress(Exception):
                    observer.failed(error)
            raise
        if expected:
            try:
                observer.after_step(logs, 0 if look is None else len(look.taken))
            except Exception as error:
                observer.fault(error)
        return logs


class Look:
    """Elements taken from an iterator, and an iterator that gives them to the step again.

    The step's trace is keyed by the element spec of the iterator, so the stand-in has the very same spec, in which
    the batch dimension may be unknown. With another spec the step would be traced again, and round differently.

    Args:
        iterator: what ``fit`` hands to the step. Nothing is taken from a distributed one.
    """

    def __init__(self, iterator: Any):
        self._iterator = iterator
        self.taken: list[Any] = []
        """The elements themselves; fewer than wanted at the end of the data."""
        self._error: Exception | None = None
        self._stand_in: Any = None

    def batches(self, count: int) -> list[Any]:
        """Up to ``count`` batches, as tensors. An error of the data is kept for the step."""
        self._take(count)
        self._prepare()
        return self._elements()

    def _take(self, count: int) -> None:
        if not isinstance(self._iterator, Iterator) or isinstance(self._iterator, tf.distribute.DistributedIterator):
            return
        for _ in range(count):
            try:
                self.taken.append(next(self._iterator))
            except (StopIteration, tf.errors.OutOfRangeError):
                return
            except Exception as error:
                self._error = error
                return

    def _elements(self) -> list[Any]:
        if isinstance(self._iterator, tf.data.Iterator):
            return [without_optionals(element) for element in self.taken]
        return [keras.tree.map_structure(_tensor, element) for element in self.taken]

    def _prepare(self) -> None:
        if self.taken and isinstance(self._iterator, tf.data.Iterator):
            self._stand_in = _replay(self.taken, self._iterator.element_spec)

    def given_back(self) -> Any:
        """An iterator that gives what was taken, and then the rest.

        Raises:
            Exception: the error that the data raised, as the step would have met it.
        """
        if self._error is not None:
            raise self._error
        if not self.taken:
            return self._iterator
        if self._stand_in is not None:
            return self._stand_in
        # No element is ever lost: where the stand-in could not be made, Keras takes them from a plain iterator.
        return itertools.chain(self.taken, self._iterator)


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


def _tensor(leaf: Any) -> Any:
    return leaf if leaf is None else tf.convert_to_tensor(leaf)
