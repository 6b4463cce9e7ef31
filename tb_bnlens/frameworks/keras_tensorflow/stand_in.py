"""An iterator that gives a step the batch that the lens has seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


class StandIn:
    """Gives a step one element at a time in place of the iterator that it was taken from.

    It is made once and filled before each step: making an iterator takes 2 ms, filling this one 0.05 ms.

    Args:
        element: the first one.
        spec: the iterator's ``element_spec``, which ``fits``.
        rest: where further elements come from in a step that takes several; None where the data end after one.
    """

    def __init__(self, element: Any, spec: Any, rest: tf.data.Iterator | None):
        self._spec, self._rest = spec, rest
        with tf.device("CPU:0"):
            self._holds, self._true = tf.Variable(False, trainable=False), tf.constant(True)
            self._parts = [
                tf.Variable(part, shape=wanted.shape, trainable=False)
                for part, wanted in zip(tf.nest.flatten(element), tf.nest.flatten(spec), strict=True)
            ]
            after = iter(tf.data.Dataset.from_tensors(element).take(0)) if rest is None else rest

            def held() -> list[Any]:
                with tf.control_dependencies([self._holds.assign(False)]):
                    return [part.read_value() for part in self._parts]

            def given(index: Any) -> Any:
                return tf.cond(self._holds, held, lambda: tf.nest.flatten(after.get_next()))

            self._iterator = as_it_is(_mapped(given, tf.nest.flatten(spec)), spec)

    def is_for(self, spec: Any, rest: tf.data.Iterator | None) -> bool:
        """Whether it can stand in for an iterator of this spec, with these elements after the one it gives."""
        return self._rest is rest and bool(self._spec == spec)

    def give(self, element: Any) -> Any:
        """The iterator, whose next element is this one."""
        # Not Variable.assign, which takes four times as long as the op itself.
        for held, part in zip(self._parts, tf.nest.flatten(element), strict=True):
            tf.raw_ops.AssignVariableOp(resource=held.handle, value=part)
        tf.raw_ops.AssignVariableOp(resource=self._holds.handle, value=self._true)
        return self._iterator


def fits(spec: Any) -> bool:
    """Whether elements of this spec are tensors that variables can hold: neither ragged nor sparse nor optional."""
    parts = tf.nest.flatten(spec)
    kinds = (tf.resource, tf.variant)
    return all(isinstance(part, tf.TensorSpec) and part.dtype not in kinds for part in parts) and bool(parts)


def _mapped(function: Callable[[Any], Any], spec: list[Any]) -> Any:
    """A dataset of what a function gives, again and again, as a variant; it may end, unlike ``Dataset.map``."""
    traced = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec([], tf.int64))
    return tf.raw_ops.MapDataset(
        input_dataset=tf.data.experimental.to_variant(tf.data.Dataset.range(tf.int64.max)),
        other_arguments=traced.captured_inputs,
        f=traced,
        output_types=[part.dtype for part in spec],
        output_shapes=[part.shape for part in spec],
        preserve_cardinality=False,
    )


def as_it_is(variant: Any, spec: Any) -> Any:
    """An iterator of a dataset variant with this ``element_spec``, which neither optimizes nor prefetches."""
    # Optimizing and tuning a pipeline of one batch takes three times as long as handing it on.
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    options.autotune.enabled = False
    return iter(tf.data.experimental.from_variant(variant, spec).with_options(options))
