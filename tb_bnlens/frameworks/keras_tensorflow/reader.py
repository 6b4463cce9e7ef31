"""Read the moving statistics of all layers of a Keras model at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tb_bnlens.frameworks.keras3.layers import KerasLayer
from tb_bnlens.moments.recovery import Snapshot

Array = NDArray[np.floating[Any]]


def native(variable: Any) -> Any:
    """The variable of TensorFlow: Keras 3 has one inside its own, and Keras 2 has no other."""
    return getattr(variable, "_value", variable)


class SnapshotReader:
    """One concatenated read of the moving statistics: 0.4 ms for 52 layers, against 3.5 ms one by one."""

    def __init__(self, layers: Sequence[KerasLayer]):
        self._means = [t.layer.moving_mean for t in layers]
        self._spreads = [t.averaged for t in layers]
        self._replicated = _replicas(self._means[0]) if layers else 1

        def concatenated() -> Any:
            return tf.concat([tf.cast(native(v), tf.float32) for v in (*self._means, *self._spreads)], axis=0)

        def traced() -> Callable[[], Any]:
            # To find the trace that a call is for takes half of the call, and to look for its arguments a quarter of
            # the rest: there is one, without any.
            function = tf.function(concatenated, autograph=False).get_concrete_function()
            call = getattr(function, "_call_flat", None)
            return function if call is None else functools.partial(call, [], function.captured_inputs)

        self._read = functools.cache(traced)

    def read(self) -> Snapshot:
        """The moving statistics now."""
        if self._replicated > 1:
            return self._read_replicas()
        flat = self._read()().numpy()
        half = len(flat) // 2
        return Snapshot(flat[:half], flat[half:])

    def _read_replicas(self) -> Snapshot:
        # Each replica updates its own copy; a cross-replica read would hide that they differ.
        def stack(variables: list[Any]) -> Array:
            per_layer = [np.stack([np.asarray(v) for v in local_values(var)]) for var in variables]
            return np.concatenate(per_layer, axis=-1).astype(np.float32)

        means, spreads = stack(self._means), stack(self._spreads)
        return Snapshot(means[0], spreads[0], replica_mean=means)


def read(variable: Any) -> Array:
    """The value of a variable of TensorFlow: ``numpy`` of a variable takes four times as long."""
    value: Array = tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype).numpy()
    return value


def local_values(variable: Any) -> list[Any]:
    """The variables of TensorFlow that hold it: several where each replica has its own."""
    return list(getattr(native(variable), "values", ()) or (native(variable),))


def _replicas(variable: Any) -> int:
    return len(local_values(variable))
