"""What ``tb_bnlens.BNLens`` and the rest are where Keras runs on a backend that is not supported.

They take the same arguments, say once what is supported, and leave training alone. TensorFlow is not needed.
"""

from __future__ import annotations

from typing import Any, NoReturn

import keras

from tb_bnlens.frameworks.support import refused, require, unsupported, unsupported_keras


class BNLens(keras.callbacks.Callback):  # type: ignore[misc]
    """A callback that says, when ``fit`` begins, why nothing is recorded."""

    def __init__(self, log_dir: str = "logs", *, on_error: str = "warn", **_options: Any):
        super().__init__()
        self._on_error = on_error

    def on_train_begin(self, logs: Any = None) -> None:
        """Say why nothing is recorded."""
        # Not self.model, which on JAX reads the state of training back.
        refused(unsupported(self._model) or unsupported_keras(), self._on_error)


class Recorder:
    """A recorder that says, when it is made, why nothing is recorded."""

    def __init__(self, model: Any, log_dir: str, loss: Any = None, *, on_error: str = "warn", **_options: Any):
        refused(unsupported(model) or unsupported_keras(), on_error)

    def record(self, x: Any, y: Any = None, sample_weight: Any = None, *, step: int | None = None) -> None:
        """Record nothing."""

    def close(self) -> None:
        """Write nothing."""

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check(model: Any, data: Any, *_args: Any, **_options: Any) -> NoReturn:
    """Refuse: ``NotImplementedError`` that says what is supported."""
    require(unsupported(model) or unsupported_keras(), "check")
    raise AssertionError("a supported Keras has its own check")


def recalibrate(model: Any, data: Any, *_args: Any, **_options: Any) -> NoReturn:
    """Refuse: ``NotImplementedError`` that says what is supported."""
    require(unsupported(model) or unsupported_keras(), "recalibrate")
    raise AssertionError("a supported Keras has its own recalibrate")
