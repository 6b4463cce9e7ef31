"""A callback for Lightning, thin over ``Recorder``."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from typing import Any

from tb_bnlens.torch.recorder import Recorder
from tb_bnlens.warning import warn_user


def _callback() -> Any:
    for package in ("lightning.pytorch", "pytorch_lightning"):
        try:
            return importlib.import_module(package).Callback
        except ModuleNotFoundError:
            continue
    return object


class BNLens(_callback()):  # type: ignore[misc]
    """Record a ``Trainer.fit`` of Lightning::

        from tb_bnlens.torch.lightning import BNLens

        trainer = L.Trainer(callbacks=[BNLens("runs/exp1", loss=nn.functional.cross_entropy)])

    The module's ``forward`` is run on ``x`` of each batch ``(x, y)``. Where batches or calls are of another kind, pass
    ``unpack``, which gives ``(x, y)`` of a batch, or ``forward``.

    Args:
        log_dir: TensorBoard run directory.
        loss: ``loss(predictions, target)``.
        unpack: ``unpack(batch)`` gives ``(x, y)``.
        options: arguments of ``Recorder``: ``metrics``, ``optimizer`` (the first of the trainer where it is not given),
            ``forward``, ``validation_data``, ``probe_data``, ``overhead``, ``tolerance``, ``ignore``, ``on_error``,
            ``planned_steps`` (those of the trainer where it is not given) and ``verbose``.
    """

    def __init__(
        self,
        log_dir: str,
        loss: Callable[..., Any] | None = None,
        *,
        unpack: Callable[[Any], tuple[Any, Any]] | None = None,
        **options: Any,
    ):
        super().__init__()
        self._log_dir, self._loss, self._unpack, self._options = log_dir, loss, unpack or _pair, options
        self.recorder: Recorder | None = None
        """The recorder of the fit that runs."""
        self._step = 0

    def __deepcopy__(self, memo: Any) -> BNLens:
        """A callback with the same options that records nothing yet. What it was given is shared."""
        return copy.copy(self)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "recorder": None}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin a record."""
        steps = trainer.estimated_stepping_batches
        planned = int(steps) if 0 < steps < float("inf") else None
        optimizer = next(iter(trainer.optimizers), None)
        settings = {"planned_steps": planned, "optimizer": optimizer, **self._options}
        self.recorder = Recorder(pl_module, self._log_dir, self._loss, **settings)
        self._step = int(trainer.global_step)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record a step of the optimizer; batches whose gradients are accumulated make none."""
        if self.recorder is None or int(trainer.global_step) == self._step:
            return
        self._step = int(trainer.global_step)
        try:
            x, y = self._unpack(batch)
        except Exception as error:
            self.recorder.abandon()
            self.recorder = None
            warn_user(f"BN Lens does not record this run any further: unpack={self._unpack!r} failed: {error}.")
            return
        self.recorder.record(x, y)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Judge and close the record."""
        if self.recorder is not None:
            # A plan that is not reached is no early end by itself: weight averaging adds an epoch without steps.
            self.recorder.close("early" if trainer.should_stop and self._stopped(trainer) else "planned")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close the record without a last probe."""
        if self.recorder is not None:
            self.recorder.abandon()

    def _stopped(self, trainer: Any) -> bool:
        planned = None if self.recorder is None else self.recorder.planned_steps
        return planned is not None and int(trainer.global_step) < planned


def _pair(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    return batch, None
