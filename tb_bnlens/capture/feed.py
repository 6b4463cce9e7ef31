"""Look at the training batch on its way to the step: a wrapper of the model's ``train_function``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf


class PeekingTrainFunction:
    """Stands in for ``model.train_function`` during one ``fit``.

    Args:
        inner: the function that ``fit`` would call.
        observer: the lens; see ``BNLens`` for the methods that are called here.
    """

    def __init__(self, inner: Callable[[Any], Any], observer: Any):
        self.inner = inner
        self.observer: Any = observer

    def __call__(self, iterator: Any) -> Any:
        """Make the step, as ``inner`` does, with the observer looking on."""
        observer = self.observer
        if observer is None or not observer.expects_step(self):
            return self.inner(iterator)
        if observer.quiet():
            logs = self.inner(iterator)
            observer.count_quiet()
            return logs
        with observer.all_timed():
            count = observer.wants_batches()
            if count:
                iterator, elements = peek(iterator, count)
                if elements:
                    observer.before_step(elements)
        logs = self.inner(iterator)
        with observer.all_timed():
            observer.after_step(logs)
        return logs


def peek(iterator: Any, count: int) -> tuple[Any, list[Any]]:
    """Take up to ``count`` elements and return an iterator that gives the step just those again.

    The step's trace is keyed by the element spec of the iterator, so the stand-in has the very same spec, in which
    the batch dimension may be unknown; a spec of its own would trace, and so round, anew.

    Returns:
        the iterator to hand on, and the elements. At the end of the data the list is empty, and the iterator
        ends when the step asks it.
    """
    if isinstance(iterator, tf.data.Iterator):
        elements = list(_take(iterator, count))
        return (_replay(elements, iterator.element_spec), elements) if elements else (iterator, [])
    if isinstance(iterator, Iterator) and not isinstance(iterator, tf.distribute.DistributedIterator):
        elements = list(itertools.islice(iterator, count))
        return itertools.chain(elements, iterator), [keras.tree.map_structure(_tensor, e) for e in elements]
    return iterator, []


def _take(iterator: Any, count: int) -> Iterator[Any]:
    for _ in range(count):
        try:
            yield next(iterator)
        except (StopIteration, tf.errors.OutOfRangeError):
            return


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
