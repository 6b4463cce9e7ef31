"""Which framework a model is of, whether BN Lens supports it, and what to say where it does not.

Standard library only: the answer must not need a framework that the user does not have.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from tb_bnlens.warning import warn_user

_OLD_KERAS = ("Keras 2 as the package keras", "import tf_keras, or build the model with Keras 3")

# Package that a class of the model comes from -> framework, and what to do.
_OTHERS = {
    "torch": ("a PyTorch module", "use tb_bnlens.torch, which has Recorder, check, recalibrate and set_momentum"),
    "flax": ("a flax module", "use tb_bnlens.flax with an nnx module: Recorder, check, recalibrate and set_momentum"),
}

SUPPORTED = ("tensorflow", "jax", "torch")
"""Backends of Keras 3."""
_BACKENDS = {"openvino": "OpenVINO", "numpy": "NumPy"}


def is_keras_2(model: Any) -> bool:
    """Whether this is a model, or a part of one, of ``tf_keras``; ``tf.keras`` is that with TF_USE_LEGACY_KERAS=1."""
    return "tf_keras" in _packages(model)


def prefers_keras_2() -> bool:
    """Whether this program uses ``tf_keras``: it says so, or has loaded it and no Keras 3."""
    said = os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true")
    return said or ("tf_keras" in sys.modules and "keras" not in sys.modules)


def keras_here() -> Any:
    """The package of Keras that this program uses."""
    return importlib.import_module("tf_keras" if prefers_keras_2() else "keras")


def _packages(model: Any) -> set[str]:
    return {base.__module__.partition(".")[0] for base in type(model).__mro__}


def unsupported(model: Any, *, any_backend: bool = False) -> str | None:
    """Why BN Lens does not support this model, None where it does or where the model is of no known framework.

    Args:
        model: a model, or anything that a user passes as one.
        any_backend: whether the requested function works with Keras on every backend.

    Returns:
        A clause that names what is supported, what this is, and what to do.
    """
    packages = _packages(model)
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
        return _reason(*_OLD_KERAS)
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
    return (
        f"only Keras 3 on TensorFlow, JAX or PyTorch and tf_keras are supported here, and this is {framework}; {advice}"
    )
