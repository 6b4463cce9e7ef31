"""Measure the running statistics again at the present weights, with undo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import torch

from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.frameworks.torch.adapter import TorchModel, as_in_training
from tb_bnlens.frameworks.torch.batches import batches_of, samples
from tb_bnlens.frameworks.torch.layers import StatisticsReader, TorchLayer, find_layers
from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.segments import Segments
from tb_bnlens.remedies.measured import Recalibration, measure, replaced, require_arguments

IN_EVAL_MODE = "it is in eval mode"


def recalibrate(
    model: Any,
    data: Any,
    batches: int = 200,
    *,
    frozen: bool = False,
    pool: str = "batches",
    batch_size: int = 32,
    skip_non_finite: bool = False,
    forward: Callable[..., Any] | None = None,
) -> Recalibration:
    """Replace the running statistics by statistics of ``data`` at the present weights (PreciseBN).

    ::

        with tb_bnlens.torch.recalibrate(model, train_loader, batches=200) as change:
            evaluate(model)      # with the new statistics
            change.keep()        # without this, the block restores the old ones

        tb_bnlens.torch.recalibrate(model, train_loader)   # without ``with``, until .undo()

    Use *training* data, in batches like those of training. Every batch runs through the model once, and each module
    normalizes with the statistics of that batch. Unlike ``torch.optim.swa_utils.update_bn``, dropout is off, as it
    is at inference, there is an undo, and no mode, momentum, counter or random state changes.

    Args:
        model: a ``torch.nn.Module``.
        data: a ``DataLoader`` or other iterable of batches, each ``x`` or ``(x, y)``; or tensors ``x`` or ``(x, y)``,
            which are split into batches. Only ``x`` is used.
        batches: the largest number of batches to use.
        frozen: also replace the statistics of modules that are in eval mode while the model is in training mode. By
            default they keep theirs, and later modules are measured with those in effect. A model that is in eval mode
            as a whole has all of them replaced.
        pool: how the variances of the batches, [C] each, are combined. ``"batches"`` averages the unbiased batch
            variances, as PyTorch does. ``"samples"`` pools the second moments: the variance over all samples.
        batch_size: the batch size for tensors.
        skip_non_finite: leave out batches that give statistics that are not finite, with a warning, instead of raising.
        forward: ``forward(model, x)``, see ``Recorder``.

    Returns:
        A ``Recalibration`` with ``undo()`` and ``keep()``.

    Raises:
        ValueError: the model is not a module, it has no BatchNorm module to recalibrate, the data have no samples
            or give statistics that are not finite, ``pool`` is unknown, or ``batches`` is below 1.
        RuntimeError: batch statistics cannot be measured in this model. The message gives the reason.

    Warns:
        UserWarning: the data have fewer than 100 samples.
    """
    require_arguments(batches, pool)
    adapter = TorchModel(model, forward=forward)
    layers = find_layers(model)
    if not layers:
        raise ValueError(f"The model {type(model).__name__} has no BatchNorm module with running statistics")
    snapshot = StatisticsReader(layers).read()
    moving = Moments(snapshot.mean, snapshot.spread).double()
    try:
        with as_in_training(model):
            runner = adapter.runner(layers, Segments([t.channels for t in layers]))
            found = measure(runner, layers, moving, _sized(data, batches, batch_size), frozen, pool, skip_non_finite)
    except NotEvaluated as reason:
        raise RuntimeError(f"The model cannot be recalibrated: {reason}") from reason
    return replaced(found, layers, _write, IN_EVAL_MODE)


def _sized(data: Any, batches: int, size: int) -> Iterator[tuple[Any, int]]:
    for batch in islice(batches_of(data, size), batches):
        yield batch, samples(batch) or 1


def _write(result: Recalibration, layer: TorchLayer, mean: Any, variance: Any) -> None:
    with torch.no_grad():
        for buffer, values in ((layer.module.running_mean, mean), (layer.module.running_var, variance)):
            before = buffer.detach().clone()
            buffer.copy_(torch.tensor(values, dtype=buffer.dtype, device=buffer.device))
            result.on_undo(partial(_restore, buffer, before))


def _restore(buffer: Any, value: Any) -> None:
    with torch.no_grad():
        buffer.copy_(value)
