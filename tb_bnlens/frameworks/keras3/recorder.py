"""The recorder of any loop that trains a Keras model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tb_bnlens.capture.options import Options
from tb_bnlens.capture.reasons import what_is
from tb_bnlens.capture.recorder import LoopRecorder
from tb_bnlens.frameworks.keras3.adapter import KerasModel
from tb_bnlens.frameworks.keras3.backend import backend
from tb_bnlens.frameworks.support import refused, unsupported


class Recorder(LoopRecorder):
    """Record a training loop for the BN Lens tab.

    Call ``record(x, y)`` after each training step; everything else follows from defaults::

        lens = tb_bnlens.Recorder(model, "runs/exp2", loss=loss_fn)
        for x, y in ds:
            train_step(x, y)
            lens.record(x, y)
        lens.close()

    Args:
        model: a Keras model; it may be built later.
        log_dir: TensorBoard run directory; the record goes to ``<log_dir>/bn_lens``.
        loss: ``loss(y_true, y_pred)``, for models that are not compiled with one. Without either the losses are
            not evaluated and the statistics are recorded all the same.
        validation_data: ``(x, y)`` or a dataset; its first batch is probed too.
        probe_data: ``(x, y)`` or a dataset whose first batch is probed instead of the training batch.
        overhead: share of training time that recording may take, e.g. 0.01; ``math.inf`` for full density.
        tolerance: relative error of the moving statistics that counts as converged.
        ignore: rule id -> layer name patterns that are shown as silenced.
        on_error: ``"warn"`` once and go on, or ``"raise"``.
        planned_steps: training steps that the loop will make in all, where known.
        verbose: 0 to print nothing when the record is closed; else one line with the verdict, the cause, a rescue and
            how to open the tab.

    Raises:
        ValueError: an argument out of range. Faults while recording are warnings, see ``on_error``.
        NotImplementedError: ``on_error`` is ``"raise"`` and the framework of the model is not supported.
    """

    def __init__(
        self,
        model: Any,
        log_dir: str,
        loss: Callable[..., Any] | None = None,
        *,
        validation_data: Any = None,
        probe_data: Any = None,
        overhead: float = 0.01,
        tolerance: float = 0.1,
        ignore: Mapping[str, str | Sequence[str]] | None = None,
        on_error: str = "warn",
        planned_steps: int | None = None,
        verbose: int = 1,
    ):
        options = Options(log_dir, validation_data, probe_data, overhead, tolerance, ignore, on_error)
        if refused(unsupported(model), options.on_error):
            return
        self._backend, self._shown = backend(model), False
        self._in_parts = partial(self._backend.in_parts, model)
        if not isinstance(model, self._backend.library.keras.layers.Layer):
            raise ValueError(f"model is {what_is(model)}; expected a keras.Model")
        super().__init__(KerasModel(model, loss), options, planned_steps, verbose=verbose)

    def record(self, x: Any, y: Any = None, sample_weight: Any = None, *, step: int | None = None) -> None:
        """Take note of one training step that has just been made on this batch.

        Args:
            x: inputs of the batch.
            y: targets; without them losses need ``add_loss``.
            sample_weight: as in ``fit``.
            step: number of steps made so far; counted where it is not given.

        Raises:
            RuntimeError: called while a function is traced (``tf.function``, ``jax.jit``).
        """
        if not self._active:
            return
        batch = self._backend.library.keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
        tracer = self._backend.traced_by(batch)
        if tracer:
            raise RuntimeError(f"Recorder.record was called inside {tracer}; call it after the compiled step")
        if not self._shown:
            self._shown, reason = True, self._in_parts(batch)
            if reason:
                self.give_up_losses(reason)
        self.step_made(batch, step)
