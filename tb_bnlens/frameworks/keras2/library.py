"""The package of Keras 2, and the functions of ``keras.ops`` that it lacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from tb_bnlens.frameworks.keras3.library import Library


class Ops:
    """Some of ``keras.ops``, by TensorFlow."""

    is_tensor = staticmethod(tf.is_tensor)
    convert_to_tensor = staticmethod(tf.convert_to_tensor)
    cast = staticmethod(tf.cast)
    where = staticmethod(tf.where)
    reshape = staticmethod(tf.reshape)
    zeros = staticmethod(tf.zeros)
    mean = staticmethod(tf.reduce_mean)

    @staticmethod
    def concatenate(parts: Any) -> Any:
        """Tensors laid end to end."""
        return tf.concat(parts, axis=0)

    @staticmethod
    def split(values: Any, stops: Any) -> list[Any]:
        """Parts of a tensor, each up to the next of these indices."""
        return [values[a:b] for a, b in zip([0, *stops], [*stops, None], strict=True)]

    @staticmethod
    def convert_to_numpy(value: Any) -> NDArray[Any]:
        """A tensor or variable as an array."""
        # A variable of a strategy gives NumPy no array.
        return np.asarray(value.read_value() if isinstance(value, tf.distribute.DistributedValues) else value)


# SyncBatchNormalization and the layer of Keras 1 have this base too.
(_NORMALIZATION,) = tf_keras.layers.BatchNormalization.__bases__
LIBRARY = Library(tf_keras, tf.nest, Ops, tf_keras.utils.Sequence, _NORMALIZATION)
