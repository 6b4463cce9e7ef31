"""BN Lens for PyTorch: record a training loop, check a model, renew its statistics, set its momentum.

::

    from tb_bnlens.torch import Recorder

    with Recorder(model, "runs/exp1", loss=loss_fn) as lens:
        for x, y in loader:
            ...                      # forward, backward, optimizer.step()
            lens.record(x, y)

Neither TensorFlow nor Keras is imported. ``tb_bnlens.torch.lightning`` and ``tb_bnlens.torch.transformers`` hold a
callback for Lightning and one for the ``Trainer`` of Transformers.
"""

from __future__ import annotations

try:
    import torch as _torch
except ModuleNotFoundError as error:
    raise ImportError(
        "tb_bnlens.torch needs PyTorch, which is not installed here; see https://pytorch.org/get-started/locally/"
    ) from error

from tb_bnlens.checking.result import Check
from tb_bnlens.torch.checking import check
from tb_bnlens.torch.momentum import set_momentum
from tb_bnlens.torch.recalibration import recalibrate
from tb_bnlens.torch.recorder import Recorder

__all__ = ["Check", "Recorder", "check", "recalibrate", "set_momentum"]

del _torch
