"""BNLens: the Keras callback over Recorder."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tb_bnlens.capture.data import batch_size
from tb_bnlens.capture.feed import PeekingTrainFunction
from tb_bnlens.capture.recorder import Recorder
from tb_bnlens.frameworks.keras2 import Keras2Callback
from tb_bnlens.frameworks.support import refused, unsupported


class BNLens(Keras2Callback, keras.callbacks.Callback):  # type: ignore[misc]
    """Record, while ``fit`` trains, what the BN Lens tab of TensorBoard needs to explain BatchNorm.

    Drop it in::

        model.fit(ds, callbacks=[BNLens("runs/exp1")])

    The training step is not changed: same graph, same random numbers, same weights to the bit.

    Args:
        log_dir: TensorBoard run directory; the record goes to ``<log_dir>/bn_lens``, beside Keras' own ``train``
            and ``validation``.
        validation_data: ``(x, y)`` or a dataset, probed besides the training batch.
        probe_data: ``(x, y)`` or a dataset to probe instead of the current training batch.
        overhead: share of training time that recording may take; ``math.inf`` for full density.
        tolerance: relative error of the moving statistics that counts as converged.
        ignore: rule id -> layer name patterns (``fnmatch``) that are shown as silenced.
        on_error: ``"warn"`` once and let training go on, or ``"raise"``.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        log_dir: str = "logs",
        *,
        validation_data: Any = None,
        probe_data: Any = None,
        overhead: float = 0.01,
        tolerance: float = 0.1,
        ignore: Mapping[str, Sequence[str]] | None = None,
        on_error: str = "warn",
    ):
        super().__init__()
        self._log_dir = log_dir
        self._options: dict[str, Any] = {
            "validation_data": validation_data,
            "probe_data": probe_data,
            "overhead": overhead,
            "tolerance": tolerance,
            "ignore": ignore,
            "on_error": on_error,
        }
        self._recorder: Recorder | None = None
        self._wrapper: PeekingTrainFunction | None = None
        self._expecting = False
        self._level: str | None = None
        self._short_batch = False
        self._seen = 0
        self._epoch_end = False
        self._last_batch = math.inf
        self._next_epoch_end = 0
        self._single_steps = True
        self._epoch = 0
        # Arguments are checked here, where the user is, and not in the middle of fit.
        Recorder(keras.Sequential(), log_dir, **self._options)

    # --- Keras' hooks --------------------------------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin the record, or go on with it in a further ``fit``."""
        # An earlier fit may have ended in an exception, of which no hook is told.
        self._unwrap()
        if self._recorder is not None:
            self._recorder.abandon()
            self._recorder = None
        # Not self.model, which on JAX reads the state of training back.
        if refused(unsupported(self._model), self._options["on_error"]):
            return
        self._recorder = recorder = Recorder(self.model, self._log_dir, **self._options)
        with recorder.guarded():
            recorder.begin(self._iterations())
            if type(self.model).train_step is not keras.Model.train_step:
                recorder.note(
                    "The model has a train_step of its own: the paired losses are those of compile(loss=...), which "
                    "may not be what it minimizes."
                )
            self._wrap()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note how far the run is planned to go."""
        recorder = self._recorder
        if recorder is None:
            return
        params = self.params or {}
        self._epoch = epoch
        self._single_steps = self._steps_per_execution() == 1
        self._last_batch = params["steps"] - self._steps_per_execution() if params.get("steps") else math.inf
        if recorder.planned_steps is None and params.get("steps") and params.get("epochs"):
            with recorder.guarded():
                recorder.plan(recorder.step + (params["epochs"] - epoch) * params["steps"])

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Expect the step that follows, and no other: ``fit`` calls it right after this."""
        if self._recorder is None:
            return
        # Not self.model, a property that asks for the backend's kind of trainer.
        if self._wrapper is not self._model.train_function:
            with self._recorder.guarded():
                self._rewrap()
        self._expecting = True
        self._epoch_end = batch >= self._last_batch

    def on_train_end(self, logs: Any = None) -> None:
        """Make the last probe and record, and take the wrapper off."""
        self._unwrap()
        if self._recorder is not None:
            with self._recorder.guarded():
                self._note_averages(self._recorder)
            self._recorder.close()
            self._recorder = None

    # --- called by the wrapper -----------------------------------------------------------------------

    def expects_step(self, wrapper: PeekingTrainFunction) -> bool:
        """Whether this call of the train function belongs to the ``fit`` that this lens watches."""
        expected, self._expecting = self._expecting, False
        if not expected:
            # An earlier fit ended in an exception that no hook saw; this call is somebody else's.
            self._unwrap()
        return expected

    def quiet(self) -> bool:
        """Whether nothing is asked of the coming step: it is to be followed by ``count_quiet`` and no more."""
        recorder = self._recorder
        return recorder is not None and self._single_steps and not self._wants_epoch_end() and recorder.quiet_for(1)

    def count_quiet(self) -> None:
        """Take note of a quiet step."""
        if self._recorder is not None:
            self._recorder.count_quiet(1)

    def all_timed(self) -> contextlib.AbstractContextManager[None]:
        """Count the block as a cost of recording."""
        return contextlib.nullcontext() if self._recorder is None else self._recorder.all_timed()

    def wants_batches(self) -> int:
        """Elements to look at before this step: 0, or as many as one execution takes."""
        recorder = self._recorder
        if recorder is None or not recorder.wanted:
            return 0
        with recorder.guarded():
            return self._wants_batches(recorder)
        return 0

    def before_step(self, elements: list[Any]) -> None:
        """Show the recorder the batches of the coming step."""
        recorder = self._recorder
        assert recorder is not None
        with recorder.guarded():
            self._before_step(recorder, elements)

    def after_step(self, logs: Any) -> None:
        """Tell the recorder how many steps were made."""
        recorder = self._recorder
        if recorder is None or not recorder.wanted:
            return
        with recorder.guarded():
            self._after_step(recorder, logs)

    # --- inside --------------------------------------------------------------------------------------

    def _wants_batches(self, recorder: Recorder) -> int:
        if not recorder.begun:
            # Reading the count takes a tenth of a millisecond: not at every step.
            recorder.begin(self._iterations())
        self._level, self._short_batch, self._seen = recorder.probe_due(), False, 0
        if not recorder.wants_batch:
            if self._level is not None:
                recorder.before_step(self._level)
            return 0
        look = self._wants_epoch_end()
        if look:
            self._next_epoch_end = 2 * self._epoch + 1
        return self._steps_per_execution() if self._level or look or recorder.wants_to_keep else 0

    def _before_step(self, recorder: Recorder, elements: list[Any]) -> None:
        # With several steps an execution only the first batch meets the weights as they are now.
        self._seen = len(elements)
        batch, usual = elements[0], recorder.batch_size
        if usual is not None and (batch_size(batch) or 0) < usual:
            # A short batch has losses unlike the others': its statistics alone are looked at.
            self._short_batch = self._steps_per_execution() == 1
            recorder.snapshot()
            return
        recorder.meet_batch(batch)
        if self._level is not None:
            recorder.before_step(self._level)

    def _after_step(self, recorder: Recorder, logs: Any) -> None:
        if not recorder.begun:
            # The first step has built the model, or found it without an optimizer's count.
            recorder.begin(self._iterations())
            return
        steps = self._seen or self._steps_per_execution()
        if steps > 1 and not self._seen and not hasattr(self.model.optimizer, "inner_optimizer"):
            # A partial last execution makes fewer. The optimizer counts them, save where it skips some (mixed_float16).
            made = self._iterations() - recorder.step
            steps = made if 0 < made < steps else steps
        fit_loss = None
        if recorder.loss_pending and isinstance(logs, dict) and "loss" in logs:
            fit_loss = float(logs["loss"])
        recorder.after_step(steps, fit_loss, self._short_batch)

    def _wants_epoch_end(self) -> bool:
        # The last batch of an epoch may be a short one: look, in a few epochs.
        return self._epoch_end and (self._epoch >= self._next_epoch_end or self._is_last_step())

    def _is_last_step(self) -> bool:
        recorder = self._recorder
        return bool(
            recorder is not None
            and recorder.planned_steps
            and recorder.step + self._steps_per_execution() >= recorder.planned_steps
        )

    def _steps_per_execution(self) -> int:
        return int(self.model.steps_per_execution or 1)

    def _iterations(self) -> int:
        # Not optimizer.iterations, which is divided under gradient accumulation. Keras 3.3 has that alone, undivided.
        optimizer = self._optimizer()
        return int(np.asarray(getattr(optimizer, "_iterations", getattr(optimizer, "iterations", 0))))

    def _optimizer(self) -> Any:
        # Under mixed_float16 a wrapper scales the loss, whose own count stays 0.
        optimizer = getattr(self.model, "optimizer", None)
        return getattr(optimizer, "inner_optimizer", optimizer)

    def _wrap(self) -> None:
        assert self._recorder is not None
        if tf.distribute.has_strategy() or self._strategy_replicas() > 1:
            self._recorder.give_up_losses(
                "under a distribution strategy the training batch cannot be looked at without disturbing the input; "
                "pass probe_data=(x, y) to have the losses measured on it"
            )
        self._wrapper = PeekingTrainFunction(self.model.train_function, self)
        self.model.train_function = self._wrapper

    def _rewrap(self) -> None:
        assert self._recorder is not None
        inner = self.model.train_function
        while isinstance(inner, PeekingTrainFunction):
            if inner is self._wrapper:
                return  # another lens stands in front
            inner = inner.inner
        if self.model.train_function is not None:
            self._recorder.event("recompile", "the model was compiled again during fit")
            self._wrapper = PeekingTrainFunction(self.model.train_function, self)
            self.model.train_function = self._wrapper

    def _unwrap(self) -> None:
        wrapper, self._wrapper = self._wrapper, None
        if wrapper is None:
            return
        wrapper.observer = None
        function = self.model.train_function
        while isinstance(function, PeekingTrainFunction) and function.observer is None:
            function = function.inner
        self.model.train_function = function

    def _note_averages(self, recorder: Recorder) -> None:
        if getattr(self._optimizer(), "use_ema", False) and recorder.begun:
            # fit has done so by now, with SwapEMAWeights or without it (Optimizer.finalize_variable_values).
            recorder.event("averaged", "the optimizer's averaged weights were put into the model (use_ema)")

    def _strategy_replicas(self) -> int:
        return int(self.model.distribute_strategy.num_replicas_in_sync)
