"""An iterator that gives a step the batch that the lens has seen."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf


class Elements:
    """What the elements of an iterator are.

    Args:
        spec: the iterator's ``element_spec``.
    """

    def __init__(self, spec: Any):
        self.spec, parts = spec, tf.nest.flatten(spec)
        kinds = (tf.resource, tf.variant)
        self.are_tensors = bool(parts) and all(
            isinstance(part, tf.TensorSpec) and part.dtype not in kinds for part in parts
        )
        """Whether variables can hold them: they are neither ragged nor sparse nor optional."""
        self.types = [part.dtype for part in parts] if self.are_tensors else []
        self.shapes = [part.shape for part in parts] if self.are_tensors else []

    def source(self, resource: Any) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
        """The op that takes the next one, of tensors, from an iterator's resource, and what packs its tensors.

        At the end it raises OutOfRangeError. ``next`` takes more than twice as long.
        """
        kinds = {"output_types": self.types, "output_shapes": self.shapes}
        take = functools.partial(tf.raw_ops.IteratorGetNext, iterator=resource, **kinds)
        return take, functools.partial(tf.nest.pack_sequence_as, self.spec)


class StandIn:
    """Gives a step one element at a time in place of the iterator that it was taken from.

    It is made once and filled before each step: making an iterator takes 2 ms, filling this one 0.05 ms.

    Args:
        element: the first one.
        elements: the iterator's, which are tensors.
        rest: where further elements come from in a step that takes several; None where the data end after one.
    """

    def __init__(self, element: Any, elements: Elements, rest: tf.data.Iterator | None):
        spec = elements.spec
        self._spec, self._rest = spec, rest
        with tf.device("CPU:0"):
            self._parts = [
                tf.Variable(part, shape=wanted.shape, trainable=False)
                for part, wanted in zip(tf.nest.flatten(element), tf.nest.flatten(spec), strict=True)
            ]
            self._after = iter(tf.data.Dataset.from_tensors(element).take(0)) if rest is None else rest
            after = _handle(self._after)
            self._next = tf.Variable(after, trainable=False)
            """Handle of the iterator that the next element comes from."""

            def held(index: Any) -> Any:
                with tf.control_dependencies([self._next.assign(after, read_value=False)]):
                    return [part.read_value() for part in self._parts]

            def given(index: Any) -> Any:
                # A condition would take 0.1 ms, as it needs several threads.
                kinds = {"output_types": elements.types, "output_shapes": elements.shapes}
                source = tf.raw_ops.IteratorFromStringHandleV2(string_handle=self._next.read_value(), **kinds)
                return tf.raw_ops.IteratorGetNextSync(iterator=source, **kinds)

            self._held = _mapped(held, elements)
            self._its_handle = _handle(self._held)
            self._iterator = _mapped(given, elements)
            # A handle in a string keeps nothing alive.
            self._iterator.takes_from = (self._held, self._after, self._next, self._parts)

    def is_for(self, spec: Any, rest: tf.data.Iterator | None) -> bool:
        """Whether it can stand in for an iterator of this spec, with these elements after the one it gives."""
        return self._rest is rest and bool(self._spec == spec)

    def give(self, element: Any) -> Any:
        """The iterator, whose next element is this one."""
        # Not Variable.assign, which takes four times as long as the op itself.
        for held, part in zip(self._parts, tf.nest.flatten(element), strict=True):
            tf.raw_ops.AssignVariableOp(resource=held.handle, value=part)
        tf.raw_ops.AssignVariableOp(resource=self._next.handle, value=self._its_handle)
        return self._iterator


def _mapped(function: Callable[[Any], Any], elements: Elements) -> Any:
    """An iterator of what a function gives, again and again; it may end, unlike ``Dataset.map``."""
    traced = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec([], tf.int64))
    variant = tf.raw_ops.MapDataset(
        input_dataset=tf.data.experimental.to_variant(tf.data.Dataset.range(tf.int64.max)),
        other_arguments=traced.captured_inputs,
        f=traced,
        output_types=elements.types,
        output_shapes=elements.shapes,
        preserve_cardinality=False,
        use_inter_op_parallelism=False,  # to hand some short ops to other threads takes longer than they do
    )
    return as_it_is(variant, elements.spec)


def _handle(iterator: Any) -> Any:
    (resource,) = tf.nest.flatten(iterator, expand_composites=True)
    return tf.raw_ops.IteratorToStringHandle(resource_handle=resource)


def as_it_is(variant: Any, spec: Any) -> Any:
    """An iterator of a dataset variant with this ``element_spec``, which neither optimizes nor prefetches."""
    # Optimizing and tuning a pipeline of one batch takes three times as long as handing it on.
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    options.autotune.enabled = False
    return iter(tf.data.experimental.from_variant(variant, spec).with_options(options))
