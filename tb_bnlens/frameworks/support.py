"""Which framework a model is of, whether BN Lens supports it, and what to say where it does not.

Standard library only: the answer must not need a framework that the user does not have.
"""

from __future__ import annotations

import importlib
from typing import Any

from tb_bnlens.warning import warn_user

_KERAS_2 = (
    "Keras 2 (tf_keras)",
    "build the model with Keras 3: unset TF_USE_LEGACY_KERAS and import keras",
)

# Package that a class of the model comes from -> framework, and what to do.
_OTHERS = {
    "tf_keras": _KERAS_2,
    "torch": ("a PyTorch module", "use tb_bnlens.torch, which has Recorder, check, recalibrate and set_momentum"),
    "flax": ("a flax module", "use tb_bnlens.flax with an nnx module: Recorder, check, recalibrate and set_momentum"),
}

SUPPORTED = ("tensorflow", "jax", "torch")
"""Backends of Keras 3."""
_BACKENDS = {"openvino": "OpenVINO", "numpy": "NumPy"}


def unsupported(model: Any, *, any_backend: bool = False) -> str | None:
    """Why BN Lens does not support this model, None where it does or where the model is of no known framework.

    Args:
        model: a model, or anything that a user passes as one.
        any_backend: whether the requested function works with Keras 3 on every backend.

    Returns:
        A clause that names what is supported, what this is, and what to do.
    """
    packages = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    if "keras" in packages:  # before torch: on that backend a Keras model is a torch module too
        return unsupported_keras(any_backend=any_backend)
    return next((_reason(*_OTHERS[package]) for package in _OTHERS if package in packages), None)


def unsupported_keras(*, any_backend: bool = False) -> str | None:
    """The same for the Keras that is installed; None where it is supported, or cannot be imported at all."""
    try:
        keras = importlib.import_module("keras")
    except ImportError:
        return None
    if keras.__version__.startswith("2."):
        return _reason(*_KERAS_2)
    backend = keras.config.backend()
    if backend in SUPPORTED or any_backend:
        return None
    return _reason(
        f"Keras 3 on {_BACKENDS.get(backend, backend)}",
        "set KERAS_BACKEND to tensorflow, jax or torch before Keras is imported",
    )


def refused(reason: str | None, on_error: str) -> bool:
    """Whether training is not to be recorded for this reason; says so without ever ending training.

    Args:
        reason: what ``unsupported`` returned.
        on_error: ``"warn"``, or ``"raise"``.

    Raises:
        NotImplementedError: there is a reason, and ``on_error`` is ``"raise"``.
    """
    if reason is None:
        return False
    sentence = f"BN Lens records nothing and training continues unchanged: {reason}."
    if on_error == "raise":
        raise NotImplementedError(sentence)
    warn_user(sentence)
    return True


def require(reason: str | None, what: str) -> None:
    """Refuse a call that is made outside of training.

    Raises:
        NotImplementedError: there is a reason.
    """
    if reason is not None:
        raise NotImplementedError(f"tb_bnlens.{what} is not available here: {reason}.")


def _reason(framework: str, advice: str) -> str:
    return f"only Keras 3 on TensorFlow, JAX or PyTorch is supported here, and this is {framework}; {advice}"
