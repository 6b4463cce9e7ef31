"""A generation of Keras: its package, and what is spelled differently in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Library:
    """What code for both generations uses in place of ``import keras``."""

    keras: Any
    """The package: ``keras``, or ``tf_keras``."""
    tree: Any
    """``flatten``, ``map_structure`` and ``pack_sequence_as`` for nested arrays."""
    ops: Any
    """The functions of ``keras.ops`` that passes are written with."""
    sequence: Any
    """The class whose instances give batches by index."""
    normalization: Any
    """What every BatchNorm layer is an instance of."""

    def host(self, value: Any) -> NDArray[Any]:
        """A variable or tensor as an array of NumPy, which may share its memory."""
        # NumPy asks more of what it converts than Keras' variables know, unless they are converted as they are.
        is_variable = hasattr(value, "assign") and hasattr(value, "_value")
        return np.asarray(value if is_variable else self.ops.convert_to_numpy(value))

    def host_known(self, value: Any) -> NDArray[Any]:
        """The same of a tensor, of a type that NumPy knows: bfloat16 as float32."""
        return self.host(self.ops.cast(value, "float32") if "bfloat16" in str(value.dtype) else value)

    def is_plain(self, leaf: Any) -> bool:
        """Whether this is a tensor with a shape, neither ragged nor sparse."""
        composite = ("RaggedTensor", "SparseTensor", "IndexedSlices")
        return bool(self.ops.is_tensor(leaf)) and type(leaf).__name__ not in composite

    def fresh(self, metric: Any) -> Any:
        """A metric of the same kind with its own variables; names and functions have none."""
        is_metric = isinstance(metric, self.keras.metrics.Metric)
        return type(metric).from_config(metric.get_config()) if is_metric else metric

    def unpacked(self, batch: Any) -> tuple[Any, Any, Any]:
        """Inputs, targets and sample weights of a batch; None for what it has not."""
        x, y, weight = self.keras.utils.unpack_x_y_sample_weight(batch)
        return x, y, weight
