"""``check`` for nnx modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tb_bnlens.capture.batches import VALIDATION_BATCHES
from tb_bnlens.checking.result import Check, judged, require_arguments
from tb_bnlens.frameworks.flax.adapter import FlaxModel, as_in_training
from tb_bnlens.frameworks.flax.batches import spread
from tb_bnlens.frameworks.flax.runner import Forward


def check(
    model: Any,
    data: Any,
    log_dir: str | None = None,
    *,
    loss: Callable[..., Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    forward: Forward | None = None,
    batches: int = 24,
    validation_data: Any = None,
    tolerance: float = 0.1,
    batch_size: int = 32,
    quiet: bool = False,
) -> Check:
    """Judge a model at its present weights, trained anywhere or loaded from disk::

        found = tb_bnlens.flax.check(model, (x, y), loss=loss_fn)   # prints the verdict
        found.severity, found.verdict, found.report

    The model runs on some batches with batch statistics, with its running statistics, and with what would undo each
    cause. Nothing in it changes. Use *training* data, in batches like those of training, since the statistics of a
    batch depend on its size.

    A model that is in eval mode as a whole is judged as if training called ``model.train()``. Layers that are in eval
    mode while others are not are taken for frozen.

    Args:
        model: an ``nnx.Module``.
        data: an iterable of batches ``(x, y)``, or arrays ``(x, y)``. Batches are spread over the data where its length
            is known; rows of arrays are drawn at random.
        log_dir: TensorBoard run directory for a record, which the tab and ``bnlens report`` show as a run. Where it
            holds a record already, the check goes to the next free directory ``check``, ``check-2``, ... inside.
        loss: ``loss(predictions, target)``, see ``Recorder``.
        metrics: see ``Recorder``.
        forward: see ``Recorder``.
        batches: the largest number of batches to use. Of 16 or more, eight do where inference is surely well
            there, or what is wrong surely explained.
        validation_data: measured besides, likewise; at most 8 batches.
        tolerance: relative error of the running statistics that counts as converged.
        batch_size: of batches that are cut from arrays.
        quiet: print nothing.

    Returns:
        A ``Check``: ``severity``, ``verdict``, ``findings`` and ``report``.

    Raises:
        ValueError: an argument out of range, a model that is not an nnx module, or data without a batch.
        TypeError: data of another kind. What the model itself raises on the data is passed on.
    """
    require_arguments(batches, batch_size, tolerance)
    adapter = FlaxModel(as_in_training(model), loss, metrics, forward)
    return judged(
        adapter,
        type(model).__name__,
        spread(data, batches, batch_size),
        () if validation_data is None else spread(validation_data, VALIDATION_BATCHES, batch_size),
        log_dir=log_dir,
        tolerance=tolerance,
        steps=0,
        quiet=quiet,
    )
