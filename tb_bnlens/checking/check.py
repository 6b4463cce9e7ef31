"""``check``: the model in hand, trained anywhere or loaded from disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tb_bnlens.capture.batches import VALIDATION_BATCHES
from tb_bnlens.capture.reasons import what_is
from tb_bnlens.checking.data import spread_batches
from tb_bnlens.checking.result import Check, judged, require_arguments
from tb_bnlens.frameworks.keras3.adapter import KerasModel, steps_made
from tb_bnlens.frameworks.keras3.backend import backend
from tb_bnlens.frameworks.support import require, unsupported


def check(
    model: Any,
    data: Any,
    log_dir: str | None = None,
    *,
    loss: Callable[..., Any] | None = None,
    batches: int = 24,
    validation_data: Any = None,
    tolerance: float = 0.1,
    batch_size: int = 32,
    quiet: bool = False,
) -> Check:
    """Judge a model at its present weights, trained anywhere or loaded from disk::

        model = keras.models.load_model("model.keras")
        found = tb_bnlens.check(model, train_ds)      # prints the verdict
        found.severity, found.verdict, found.report

    The model runs on some batches with batch statistics, with its moving statistics, and with what would undo each
    cause. Nothing in it changes: no weight, no optimizer, metric or random seed. Use *training* data, in batches like
    those of training, since the statistics of a batch depend on its size.

    One moment does not show what takes a course over time. Causes such as drift are listed as not evaluated; record the
    training with ``BNLens`` to have them judged.

    Args:
        model: a built Keras model. Loss and metrics come from ``compile``; without metrics, the accuracy
            where targets are classes and the predictions a score for each.
        data: a ``tf.data.Dataset``, a ``PyDataset``, arrays ``(x, y)`` or ``(x, y, sample_weight)``, or an iterable
            of batches. Batches are spread over the data where its length is known; rows of arrays are drawn at random.
        log_dir: TensorBoard run directory for a record, which the tab and ``bnlens report`` show as a run. Where it
            holds a record already, the check goes to the next free directory ``check``, ``check-2``, ... inside.
        loss: ``loss(y_true, y_pred)``, for a model that is not compiled. Without either, losses are not evaluated.
        batches: the largest number of batches to use. Of 16 or more, eight do where inference is surely well
            there, or what is wrong surely explained.
        validation_data: measured besides, likewise; at most 8 batches.
        tolerance: relative error of the moving statistics that counts as converged.
        batch_size: of batches that are cut from arrays.
        quiet: print nothing.

    Returns:
        A ``Check``: ``severity``, ``verdict``, ``findings`` and ``report``.

    Raises:
        NotImplementedError: not a Keras model on TensorFlow, JAX or PyTorch.
        ValueError: an argument out of range, a model that is not built, or data without a batch.
        TypeError: data of another kind. What the model itself raises on the data is passed on.
    """
    require(unsupported(model), "check")
    on = backend(model)
    form = on.batches
    if not isinstance(model, on.library.keras.Model):
        raise ValueError(f"model is {what_is(model)}; expected a keras.Model")
    if not model.built:
        raise ValueError(f"The model {model.name!r} is not built; call it on a batch first")
    require_arguments(batches, batch_size, tolerance)
    kept = spread_batches(form, data, batches, batch_size)
    given = validation_data is not None
    validation = spread_batches(form, validation_data, VALIDATION_BATCHES, batch_size) if given else ()
    with on.built_apart(model, kept[0]):
        return judged(
            KerasModel(model, loss),
            model.name,
            kept,
            validation,
            log_dir=log_dir,
            tolerance=tolerance,
            steps=steps_made(model),
            quiet=quiet,
        )
