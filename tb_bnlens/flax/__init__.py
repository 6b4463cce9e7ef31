"""BN Lens for flax nnx: record a training loop, check a model, renew its statistics, set its momentum.

::

    from tb_bnlens.flax import Recorder

    with Recorder(model, "runs/exp1", loss=loss_fn) as lens:
        for x, y in batches:
            train_step(model, optimizer, x, y)     # your own, under nnx.jit
            lens.record(x, y)

Neither TensorFlow nor Keras is imported.
"""

from __future__ import annotations

try:
    from flax import nnx as _nnx
except ModuleNotFoundError as error:
    raise ImportError("tb_bnlens.flax needs flax with nnx, which is not installed here: pip install flax") from error

from tb_bnlens.checking.result import Check
from tb_bnlens.flax.checking import check
from tb_bnlens.flax.momentum import set_momentum
from tb_bnlens.flax.recalibration import recalibrate
from tb_bnlens.flax.recorder import Recorder

__all__ = ["Check", "Recorder", "check", "recalibrate", "set_momentum"]

del _nnx
