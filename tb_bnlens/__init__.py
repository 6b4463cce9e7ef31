"""BN Lens: why a network is fine in training mode and broken at inference, and what to change.

The names are imported when first used (PEP 562), so that viewing needs no TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["BNLens", "Recorder", "__version__", "recalibrate", "set_momentum", "summary"]

if TYPE_CHECKING:
    from tb_bnlens import summary as summary
    from tb_bnlens.callback import BNLens as BNLens
    from tb_bnlens.capture.recorder import Recorder as Recorder
    from tb_bnlens.remedies import recalibrate as recalibrate
    from tb_bnlens.remedies import set_momentum as set_momentum

_HOME = {
    "BNLens": "tb_bnlens.callback",
    "Recorder": "tb_bnlens.capture.recorder",
    "recalibrate": "tb_bnlens.remedies",
    "set_momentum": "tb_bnlens.remedies",
    "summary": "tb_bnlens.summary",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tb_bnlens' has no attribute {name!r}; it has {', '.join(__all__)}")
    try:
        module = importlib.import_module(_HOME[name])
    except ModuleNotFoundError as error:
        if error.name not in ("tensorflow", "keras"):
            raise
        raise ImportError(
            f"tb_bnlens.{name} records training and needs TensorFlow, which is not installed; "
            "run: pip install 'tensorboard-plugin-bnlens[tensorflow]'"
        ) from error
    return module if name == "summary" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
