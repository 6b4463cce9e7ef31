"""Keras 3 on TensorFlow."""

from __future__ import annotations

from tb_bnlens.frameworks.keras3.generation import LIBRARY, Keras3
from tb_bnlens.frameworks.keras_tensorflow.common import OnTensorFlow


class TensorFlowBackend(OnTensorFlow, Keras3):
    """See ``keras3.backend.Backend``."""

    packages = ("tensorflow", "keras")

    def __init__(self) -> None:
        super().__init__(LIBRARY)


BACKEND = TensorFlowBackend()
