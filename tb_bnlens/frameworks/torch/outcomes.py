"""What is made of a pass' predictions: its loss, the loss of each row, and the user's metrics."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tb_bnlens.capture.accuracy import IGNORED
from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.packages import is_closed
from tb_bnlens.capture.passes import Ending
from tb_bnlens.capture.reasons import cause_of, what_is, why_no_loss, with_article
from tb_bnlens.frameworks.torch.batches import Batch, leaves, length, objects_put_back, rows_of, samples
from tb_bnlens.frameworks.torch.together import Together, nothing_together
from tb_bnlens.frameworks.torch.untouched import undone

NO_LOSS = (
    "The model has no loss: pass loss=..., called as loss(predictions, target), or have the model return an output "
    "that holds its loss."
)
NO_TENSOR = (
    "The loss returns {}, and a tensor is needed: pass a function that returns one alone, with a number or one for "
    "each row."
)
NO_GRADIENT = "does not require grad"
"""What PyTorch says where a derivative is taken of what was computed without gradients."""
DERIVED = (
    "The loss takes derivatives, and passes run without gradients ({}): give the recorder a loss without that term to "
    "have the losses measured."
)
DERIVED_IN_MODEL = (
    "the model takes derivatives, and passes run without gradients ({}): take them in a block with torch.enable_grad() "
    "to have the losses measured"
)
NO_METRICS = "no metrics were given: pass metrics={'accuracy': function_of(predictions, target)}"


def accuracy(predictions: Any, target: Any) -> Any:
    """Share of the rows whose largest score is that of the target's class, [B, C, ...] against [B, ...].

    Targets that are no class, as ``ignore_index`` is none, do not count.

    Raises:
        NotEvaluated: they are of another kind.
    """
    if not (isinstance(predictions, torch.Tensor) and isinstance(target, torch.Tensor)):
        raise NotEvaluated(NO_METRICS)
    scores = predictions.is_floating_point() and predictions.dim() > 1 and predictions.shape[1] > 1
    of_classes = not target.is_floating_point() and not target.is_complex() and target.dtype != torch.bool
    if not (scores and of_classes and target.shape == (len(predictions), *predictions.shape[2:])):
        raise NotEvaluated(NO_METRICS)
    counted = (target >= 0) & ((target != IGNORED) | (predictions.shape[1] > IGNORED))
    if bool((target[counted] >= predictions.shape[1]).any()):
        raise NotEvaluated(NO_METRICS)  # the numbers are none of these scores'
    return (predictions.argmax(1) == target)[counted].double().mean()


class Outcomes:
    """Loss and metrics of one model's predictions.

    Args:
        loss: ``loss(predictions, target)``; without it the predictions have to hold one, as ``.loss`` or ``["loss"]``.
        metrics: name -> ``metric(predictions, target)``, which gives one number or one for each row; or an object
            with ``update``, ``compute`` and ``reset``, as in torchmetrics. None is the accuracy, where the target is
            the number of a class.
    """

    def __init__(self, loss: Callable[..., Any] | None, metrics: Mapping[str, Any] | None = None):
        self._loss = loss
        self._metrics: dict[str, Any] = {"accuracy": accuracy} if metrics is None else dict(metrics)

    def loss(self, predictions: Any, target: Any) -> float:
        """The loss of a batch.

        Raises:
            NotEvaluated: there is none, or it cannot be taken of these predictions.
        """
        return float(self._of(predictions, target).float().mean())

    def _of(self, predictions: Any, target: Any) -> Any:
        if self._loss is None:
            return own_loss(predictions)
        try:
            loss = self._loss(predictions, target)
        except Together as reason:
            reason.known = True
            raise NotEvaluated(reason.of_loss()) from reason
        except Exception as error:
            if NO_GRADIENT in str(error):
                raise NotEvaluated(DERIVED.format(cause_of(error))) from error
            raise NotEvaluated(why_no_loss(error, target is not None, "loss(predictions, target)")) from error
        if isinstance(loss, int | float | np.generic | np.ndarray):
            return torch.as_tensor(loss)
        if not isinstance(loss, torch.Tensor):
            raise NotEvaluated(NO_TENSOR.format(what_is(loss)))
        return loss

    def rows(self, batch: Any, predictions: Any, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Loss of these rows of a batch, each as a separate batch, [len(indices)].

        Raises:
            NotEvaluated: predictions or targets have no row for each sample, or the model computes its loss itself.
        """
        if self._loss is None:
            raise NotEvaluated("the model computes its own loss, which is not known for single rows")
        size, predictions = samples(batch), value_of(predictions)
        for leaf in leaves((predictions, batch.y)):
            if length(leaf) is None or length(leaf) != size:
                raise NotEvaluated("predictions or targets have no row for each sample")
        with objects_put_back(batch), undone(_devices(predictions), self._loss):
            found = [self._row(batch, predictions, int(i)) for i in indices]
        return np.asarray(torch.stack(found).double().cpu().numpy(), np.float64)

    def _row(self, batch: Any, predictions: Any, index: int) -> Any:
        row = rows_of((predictions, batch.y), slice(index, index + 1))
        return self._of(*row).float().mean()

    def weights(self, batch: Any) -> None:
        """Losses in PyTorch take no weight for each sample."""

    # --- metrics -------------------------------------------------------------------------------------

    def metric_state(self) -> dict[str, Any]:
        """Metrics before the first batch.

        Raises:
            NotEvaluated: there are none.
        """
        if not self._metrics:
            raise NotEvaluated(NO_METRICS)
        return {name: _fresh(metric) if _keeps_state(metric) else (0.0, 0) for name, metric in self._metrics.items()}

    def update(self, state: dict[str, Any], batch: Batch, predictions: Any) -> dict[str, Any]:
        """Metrics after one more batch."""
        predictions = value_of(predictions)
        functions = [metric for metric in self._metrics.values() if not _keeps_state(metric)]
        with objects_put_back(batch), undone(_devices(predictions), *functions):
            return {name: self._updated(name, held, batch, predictions) for name, held in state.items()}

    def _updated(self, name: str, held: Any, batch: Batch, predictions: Any) -> Any:
        metric = self._metrics[name]
        try:
            if _keeps_state(metric):
                held.update(predictions, batch.y)
                return held
            value = torch.as_tensor(metric(predictions, batch.y), dtype=torch.float64)
        except NotEvaluated:
            raise
        except Exception as error:
            raise NotEvaluated(f"the metric {name!r} fails on the recorded batches ({cause_of(error)})") from error
        rows = samples(batch) or 1
        return held[0] + float(value.mean()) * rows, held[1] + rows

    def metrics(self, state: Mapping[str, Any]) -> dict[str, float]:
        """Their values."""
        with nothing_together():
            return {name: self._value(held) for name, held in state.items()}

    @staticmethod
    def _value(held: Any) -> float:
        return held[0] / max(held[1], 1) if isinstance(held, tuple) else float(held.compute())


def kind_of(predictions: Any) -> str:
    """The kind of a model's output, in words, for messages."""
    if isinstance(predictions, tuple | list) and predictions and not hasattr(predictions, "_fields"):
        return f"{with_article(_kind(predictions))} of {_kind(predictions[0])}s"
    return with_article(_kind(predictions))


def _kind(value: Any) -> str:
    return "tensor" if isinstance(value, torch.Tensor) else type(value).__name__


def held(predictions: Any) -> Any:
    """Predictions as they are, or in a ``Ending`` where their end may change something."""
    return predictions if _ends_quietly(predictions) else Ending(predictions)


def value_of(predictions: Any) -> Any:
    """The predictions that ``held`` was given."""
    return predictions.value if isinstance(predictions, Ending) else predictions


def _ends_quietly(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return type(value) is torch.Tensor and not vars(value) and not weakref.getweakrefcount(value)
    if isinstance(value, Mapping | tuple | list):
        parts = value.values() if isinstance(value, Mapping) else value
        return is_closed(type(value)) and all(map(_ends_quietly, parts))
    return value is None or isinstance(value, bool | int | float | str)


def _devices(predictions: Any) -> set[torch.device]:
    return {leaf.device for leaf in leaves(predictions) if isinstance(leaf, torch.Tensor)}


def own_loss(predictions: Any) -> Any:
    """The loss in the output of a model that computes it itself.

    Raises:
        NotEvaluated: there is none.
    """
    found = predictions.get("loss") if isinstance(predictions, Mapping) else getattr(predictions, "loss", None)
    if isinstance(found, torch.Tensor):
        return found
    if isinstance(predictions, torch.Tensor) and predictions.dim() == 0:
        return predictions
    raise NotEvaluated(NO_LOSS)


def _keeps_state(metric: Any) -> bool:
    return all(callable(getattr(metric, name, None)) for name in ("update", "compute", "reset"))


def _fresh(metric: Any) -> Any:
    # A copy: the user's own may be in use by the training loop.
    own = copy.deepcopy(metric)
    for part in own.modules() if isinstance(own, torch.nn.Module) else (own,):
        if hasattr(part, "sync_on_compute"):  # of torchmetrics, which would ask the other ranks
            part.sync_on_compute = False
    own.reset()
    return own
