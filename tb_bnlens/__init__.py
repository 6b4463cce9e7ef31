"""BN Lens: why a network is fine in training mode and broken at inference, and what to change.

The names are imported when first used (PEP 562), so that viewing needs no TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tb_bnlens.frameworks import support

__version__ = "0.1.0"
__all__ = ["BNLens", "Recorder", "__version__", "check", "recalibrate", "set_momentum", "summary"]

if TYPE_CHECKING:
    from tb_bnlens import summary as summary
    from tb_bnlens.callback import BNLens as BNLens
    from tb_bnlens.checking.check import check as check
    from tb_bnlens.frameworks.keras3.recorder import Recorder as Recorder
    from tb_bnlens.remedies.momentum import set_momentum as set_momentum
    from tb_bnlens.remedies.recalibration import recalibrate as recalibrate

_HOME = {
    "BNLens": "tb_bnlens.callback",
    "Recorder": "tb_bnlens.frameworks.keras3.recorder",
    "check": "tb_bnlens.checking.check",
    "recalibrate": "tb_bnlens.remedies.recalibration",
    "set_momentum": "tb_bnlens.remedies.momentum",
    "summary": "tb_bnlens.summary",
}
_PACKAGES = ("torch", "flax")
_NOT_EVERYWHERE = ("BNLens", "Recorder", "check", "recalibrate")


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"tb_bnlens.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'tb_bnlens' has no attribute {name!r}; it has {', '.join(__all__)}")
    home = _HOME[name]
    if name in _NOT_EVERYWHERE and not support.prefers_keras_2() and support.unsupported_keras() is not None:
        home = "tb_bnlens.frameworks.unsupported"
    try:
        module = importlib.import_module(home)
    except ModuleNotFoundError as error:
        if error.name not in ("tensorflow", "keras", "tf_keras"):
            raise
        needs = "TensorFlow" if name == "summary" else "Keras 3 on TensorFlow, JAX or PyTorch"
        raise ImportError(
            f"tb_bnlens.{name} needs {needs}, and {error.name} is not installed here; run: "
            "pip install 'tensorboard-plugin-bnlens[tensorflow]'; for PyTorch and flax, import tb_bnlens.torch or .flax"
        ) from error
    return module if name == "summary" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
