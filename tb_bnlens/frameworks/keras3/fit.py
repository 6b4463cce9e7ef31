"""One ``fit`` of one model, watched through the callback's hooks and a wrapper of ``train_function``."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from tb_bnlens.capture.guard import RECORD
from tb_bnlens.capture.phases import PHASES, Phase
from tb_bnlens.capture.recorder import LoopRecorder
from tb_bnlens.capture.recording import Recording
from tb_bnlens.frameworks.keras3 import stack
from tb_bnlens.frameworks.keras3.adapter import counting_optimizer, steps_made
from tb_bnlens.frameworks.keras3.backend import Look, backend
from tb_bnlens.frameworks.keras3.feed import Counter, PeekingTrainFunction
from tb_bnlens.frameworks.keras3.layers import has_own_step
from tb_bnlens.metadata import OWN_STEP, EventKind

LONG_EPOCH = 64
"""An epoch of this many steps pays for two reads of the statistics."""


class FitWatch:
    """Tells a ``Recorder`` what one ``fit`` does. It is the ``Observer`` of the wrapper that it puts on the model.

    Faults stay inside: hooks guard themselves, and ``PeekingTrainFunction`` guards what it calls.

    Args:
        model: the model that ``fit`` trains.
        recorder: what is told.
        log_dir: as it was given to the lens; which directory in it is decided when the record begins.
        params: Keras' ``Callback.params``.
        callbacks: the ``CallbackList`` that calls the hooks, None where it is not known.
    """

    def __init__(
        self, model: Any, recorder: LoopRecorder, log_dir: str, params: Mapping[str, Any] | None, callbacks: Any
    ):
        self.model, self.recorder, self.params = model, recorder, params
        self._callbacks = None if callbacks is None else weakref.ref(callbacks)
        self.backend = backend(model)
        self._log_dir = log_dir
        self._phase: Phase | None = None
        self.wrapper: PeekingTrainFunction | None = None
        self._inner: Any = None
        """The function that the wrapper stood for, once it is off."""
        # Keras calls no hook after an exception: the record is flushed when the fit's frame, and with it the list of
        # its callbacks, is gone; or with this object or the process.
        self._left = (
            weakref.finalize(self, recorder.abandon) if callbacks is None else weakref.finalize(callbacks, self._gone)
        )
        self.recording: Recording | None = None
        """``recorder.recording`` once the record has begun: to ask for it would be a call in each step."""
        self.quiet: Counter | None = None
        self.quiet_before = -math.inf
        """Batches of an epoch before this one may go by where nothing is due."""
        self._expecting = False
        self._epoch = 0
        self._epoch_end = False
        self._last_batch = math.inf
        self._next_epoch_end = self._next_look = 0

    @property
    def callbacks(self) -> Any:
        """The ``CallbackList`` of the fit, None where it is not known or the fit has ended."""
        return None if self._callbacks is None else self._callbacks()

    # --- hooks of the callback -----------------------------------------------------------------------

    def begin(self) -> None:
        """Put the wrapper on. The record begins with the first epoch, when other callbacks have restored the model."""
        with self.recorder.guarded():
            if has_own_step(self.model):
                self.recorder.note(OWN_STEP)
            self._wrap()

    def epoch_begins(self, epoch: int) -> None:
        """Note how far the run is planned to go."""
        with self.recorder.guarded():
            if self.recorder.begun:
                self.recorder.look_outside()
            else:
                self._begin_record()
            params = self.params or {}
            steps, epochs = params.get("steps"), params.get("epochs")
            self._epoch = epoch
            at_once = self._steps_per_execution()
            self._last_batch = steps - at_once if steps else math.inf
            usual = self._last_batch if self._looks_at_the_end() else math.inf
            self.quiet_before = usual if at_once == 1 else -math.inf
            if self.recorder.planned_steps is None and steps and epochs:
                self.recorder.plan(self.recorder.step + (epochs - epoch) * steps, steps)

    def batch_begins(self, batch: int) -> None:
        """Expect the step that follows, and no other: ``fit`` makes it right after this.

        Not called where ``quiet`` is set instead.
        """
        if self.wrapper is not self.model.train_function and self.recorder.wanted:
            with self.recorder.guarded():
                self._rewrap()
        self._expecting, self.quiet = True, None
        self._epoch_end = batch >= self._last_batch

    def end(self) -> None:
        """Make the last probe and record, and take the wrapper off."""
        function = self._unwrap()
        with self.recorder.guarded():
            self.recorder.look_outside()
            self._note_averages()
        self.recorder.close(self._ended())
        self._leave(function)

    def abandon(self) -> None:
        """The ``fit`` has ended in an exception, for which Keras calls no hook."""
        function = self._unwrap()
        self.recorder.abandon()
        self._leave(function)

    def _gone(self) -> None:
        # The finalizer holds the model.
        self._left.detach()
        self._unwrap()
        self.recorder.abandon()

    def _leave(self, function: Any) -> None:
        self._left.detach()
        if self._phase is not None:
            iterations, optimizer = steps_made(self.model), counting_optimizer(self.model)
            step = max(self.recorder.step, self._phase.step_at(iterations, optimizer))
            kept, updates, attributes = self.recorder.kept_batches(), self.recorder.updates, self.recorder.attributes
            self._phase.ends(step, iterations, optimizer, function, kept, updates, attributes)

    def _ended(self) -> str:
        params, planned = self.params or {}, self.recorder.planned_steps
        if planned is not None:
            return "planned" if self.recorder.step >= planned else "early"
        # Data of unknown length: the plan is a number of epochs.
        return "planned" if self._epoch + 1 >= params.get("epochs", 0) else "early"

    def _begin_record(self, after_a_step: bool = False) -> None:
        iterations, optimizer = steps_made(self.model), counting_optimizer(self.model)
        phase = self._phase
        if phase is None:
            phase = self._phase = PHASES.phase(self.model, self._log_dir, iterations)
            self.recorder.goes_on(phase)
        self.recorder.begin(phase.step_at(iterations, optimizer), after_a_step)
        self.recording = self.recorder.recording
        if self.recorder.begun and phase.fits and self.wrapper is not None:
            before = phase.train_function and phase.train_function()
            if before is not self.wrapper.inner:
                self.recorder.event(EventKind.RECOMPILE, "the model was compiled again before this fit")

    # --- Observer ------------------------------------------------------------------------------------

    def expects_step(self, state: Sequence[Any]) -> bool:
        """Whether this call, which is not quiet and gets this state, is a step of the watched ``fit``."""
        expected, self._expecting = self._expecting, False
        if not expected and not stack.is_running(self.callbacks):
            # The fit has ended in an exception. While it runs, the call is e.g. a train_on_batch in a callback.
            # On JAX the variables hold nothing in a fit.
            with self.backend.attached(self.model, state):
                self.abandon()
        return expected

    def before_step(self, look: Look) -> None:
        """Show the recorder the batches of the coming step."""
        if self.recorder.wanted:
            with self.recorder.all_timed(), self.recorder.guarded():
                self._before_step(look)

    def after_step(self, logs: Any, seen: int) -> None:
        """Tell the recorder how many steps were made."""
        if self.recorder.wanted:
            with self.recorder.all_timed(), self.recorder.guarded():
                self._after_step(logs, seen)

    def failed(self, error: BaseException) -> None:
        """The step raised, and ``fit`` ends with it unless the data have only come to their end."""
        if not isinstance(error, self.backend.end_of_data):
            self._gone()

    def fault(self, error: Exception) -> None:
        """One of the methods above raised: nothing more is recorded."""
        self.recorder.fault(RECORD, error)

    # --- inside --------------------------------------------------------------------------------------

    def _before_step(self, look: Look) -> None:
        if not self.recorder.begun:
            # Reading the count takes a tenth of a millisecond: not at every step.
            self._begin_record()
        elif self.recorder.step:
            self.recorder.look_outside(at_epoch=False)
            if self.recorder.changed_outside:
                self.quiet_before = min(self.quiet_before, self._last_batch)
        steps, last = self._steps_per_execution(), self._wants_epoch_end()
        if last:
            self._next_epoch_end = 2 * self._epoch + 1
        self.recorder.before(steps, lambda: look.batches(steps), last)

    def _after_step(self, logs: Any, seen: int) -> None:
        recorder = self.recorder
        if not recorder.begun:
            # The first step has built the model, or all of its parts that will be.
            self._begin_record(after_a_step=True)
            return
        steps = seen or self._steps_per_execution()
        if steps > 1 and not seen and not hasattr(self.model.optimizer, "inner_optimizer"):
            # A partial last execution makes fewer. The optimizer counts them, save where it skips some (mixed_float16).
            assert self._phase is not None
            made = self._phase.step_at(steps_made(self.model), counting_optimizer(self.model)) - recorder.step
            steps = made if 0 < made < steps else steps
        fit_loss = None
        if recorder.loss_pending and isinstance(logs, dict) and "loss" in logs:
            fit_loss = float(logs["loss"])
        recorder.after(steps, fit_loss, self._epoch_end and self._looks_between_epochs())

    def _wants_epoch_end(self) -> bool:
        # The last batch of an epoch may be a short one: look, in a few epochs.
        return self._epoch_end and (self._epoch >= self._next_epoch_end or self._is_last_step())

    def _looks_at_the_end(self) -> bool:
        """Whether there is anything to do at the end of this epoch; the last steps of a known plan are never quiet."""
        return self._looks_always or self._epoch >= min(self._next_epoch_end, self._next_look)

    def _looks_between_epochs(self) -> bool:
        if self._is_last_step() or self._looks_always:
            return True
        if self._epoch < self._next_look:
            return False
        self._next_look = 2 * self._epoch + 1
        return True

    @property
    def _looks_always(self) -> bool:
        # Two reads are cheap beside a long epoch, and too much in each of a million short ones.
        return self.recorder.changed_outside or self._last_batch >= LONG_EPOCH

    def _is_last_step(self) -> bool:
        planned = self.recorder.planned_steps
        return bool(planned and self.recorder.step + self._steps_per_execution() >= planned)

    def _steps_per_execution(self) -> int:
        steps = self.model.steps_per_execution
        # Keras 2 has a variable, which may be one of a strategy.
        return int(steps or 1) if isinstance(steps, int | None) else int(self.backend.library.host(steps))

    def _wrap(self) -> None:
        reason = self.backend.no_losses(self.model)
        if reason:
            self.recorder.give_up_losses(reason)
        self.wrapper = PeekingTrainFunction(self.model.train_function, self)
        self.model.train_function = self.wrapper

    def _rewrap(self) -> None:
        inner = self.model.train_function
        while isinstance(inner, PeekingTrainFunction):
            if inner is self.wrapper:
                return  # another lens stands in front
            inner = inner.inner
        if self.model.train_function is not None:
            self.recorder.event(EventKind.RECOMPILE, "the model was compiled again during fit")
            self.wrapper = PeekingTrainFunction(self.model.train_function, self)
            self.model.train_function = self.wrapper

    def _unwrap(self) -> Any:
        """Take the wrapper off. Returns the function it stood for."""
        wrapper, self.wrapper = self.wrapper, None
        if wrapper is None:
            return self._inner
        wrapper.observer = None
        function = self.model.train_function
        while isinstance(function, PeekingTrainFunction) and function.observer is None:
            function = function.inner
        self.model.train_function = function
        self._inner = wrapper.inner
        return self._inner

    def _note_averages(self) -> None:
        if getattr(counting_optimizer(self.model), "use_ema", False) and self.recorder.begun:
            # fit has done so by now, with SwapEMAWeights or without it (Optimizer.finalize_variable_values).
            self.recorder.event(
                EventKind.AVERAGED, "the optimizer's averaged weights were put into the model (use_ema)"
            )
