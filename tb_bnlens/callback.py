"""BNLens: the Keras callback over Recorder."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tb_bnlens.capture.guard import RECORD, Guard
from tb_bnlens.capture.options import Options, require_verbose
from tb_bnlens.frameworks.keras3 import stack
from tb_bnlens.frameworks.keras3.backend import backend
from tb_bnlens.frameworks.keras3.fit import FitWatch
from tb_bnlens.frameworks.keras3.recorder import Recorder
from tb_bnlens.frameworks.support import keras_here, refused, unsupported

_Callback = keras_here().callbacks.Callback


class BNLens(_Callback):  # type: ignore[misc,valid-type]
    """Record, while ``fit`` trains, what the BN Lens tab of TensorBoard needs to explain BatchNorm.

    Drop it in::

        model.fit(ds, callbacks=[BNLens("runs/exp1")])

    The training step is not changed: same graph, same random numbers, same weights to the bit. A fault of the lens
    never ends ``fit``.

    Args:
        log_dir: TensorBoard run directory; the record goes to ``<log_dir>/bn_lens``, beside Keras' own ``train``
            and ``validation``.
        validation_data: probed besides the training batch: arrays ``(x, y)``, a list of batches, or a
            ``tf.data.Dataset`` that neither shuffles nor draws random numbers. Without it the lens takes what was
            given to ``fit``, if it is one of these. Generators and PyDatasets are refused: a batch of theirs cannot be
            had without changing what training gets.
        probe_data: probed instead of the current training batch, likewise.
        overhead: share of training time that recording may take, at most 1; ``math.inf`` for full density.
        tolerance: relative error of the moving statistics that counts as converged.
        ignore: rule id -> layer name pattern (``fnmatch``), or a list of them, to be shown as silenced.
        on_error: ``"warn"`` once and let training go on, or ``"raise"``.
        verbose: 1 to print one line at the end of ``fit``: the verdict, the cause, a rescue and how to open the tab;
            0 to print nothing. ``fit(verbose=0)`` leaves the line on.

    Raises:
        ValueError: an argument out of range.
        NotImplementedError: ``on_error`` is ``"raise"`` and the framework of the model is not supported; raised when
            ``fit`` begins.
    """

    def __init__(
        self,
        log_dir: str = "logs",
        *,
        validation_data: Any = None,
        probe_data: Any = None,
        overhead: float = 0.01,
        tolerance: float = 0.1,
        ignore: Mapping[str, str | Sequence[str]] | None = None,
        on_error: str = "warn",
        verbose: int = 1,
    ):
        super().__init__()
        require_verbose(verbose)
        self._fitted: Any = None
        self._verbose = verbose
        self._options = Options(log_dir, validation_data, probe_data, overhead, tolerance, ignore, on_error)
        self._watches: list[FitWatch | None] = []
        """The fits that are running, a nested one after the one around it; None for one that cannot be watched."""
        self._guard = self._new_guard()

    def __deepcopy__(self, memo: Any) -> BNLens:
        """A lens with the same options that watches nothing. Data is shared: a tuner copies its callbacks often."""
        copied = type(self).__new__(type(self))
        kept = {"_options": self._options}
        copied.__setstate__(kept | {k: copy.deepcopy(v, memo) for k, v in self.__getstate__().items() if k not in kept})
        return copied

    def __getstate__(self) -> dict[str, Any]:
        # A copy takes no part in the running fit. Keras 2 has the model where Keras 3 has a property.
        of_fit = {"_fitted", "_model", "model", "params", "_guard"} & self.__dict__.keys()
        return {**self.__dict__, "_watches": [], **dict.fromkeys(of_fit)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._guard = self._new_guard()

    # --- Keras' hooks --------------------------------------------------------------------------------

    def set_model(self, model: Any) -> None:
        """Note which model is trained."""
        super().set_model(model)
        # Not self.model, which on JAX reads the state of training back.
        self._fitted = model

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin the record, or go on with it in a further ``fit``."""
        self._guard.given_up = {}  # it warns once in each fit
        with self._guard(RECORD):
            # An earlier fit may have ended in an exception, and then Keras calls no hook.
            self._leave(lambda watch: watch is not None and stack.is_running(watch.callbacks))
        self._watches.append(None)
        with self._guard(RECORD):
            if refused(unsupported(self._fitted), self._options.on_error):
                return
            watch = self._watches[-1] = self._watch(self._fitted)
            watch.begin()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note how far the run is planned to go."""
        with self._guard(RECORD):
            if (watch := self._current()) is not None:
                watch.epoch_begins(epoch)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Expect the step that follows."""
        try:
            watch = self._watches[0] if len(self._watches) == 1 else self._current()
            if watch is None:
                return
            recording = watch.recording
            # Not in a method of the watch: with the calls of five functions a step took 17 us more, and 8 without.
            if (
                recording is not None
                and batch < watch.quiet_before
                and recording.step + 1 < recording.quiet_until
                and watch.wrapper is watch.model.train_function
            ):
                watch.quiet = recording
            else:
                watch.batch_begins(batch)
        except Exception as error:
            self._guard.fault(RECORD, error)

    def on_train_end(self, logs: Any = None) -> None:
        """Make the last probe and record, and take the wrapper off."""
        running = len(self._watches)
        with self._guard(RECORD):
            self._end()
        if len(self._watches) == running:
            with self._guard(RECORD):
                # It has failed, and the wrapper may still be on.
                self._leave(lambda _: len(self._watches) < running)

    # --- what Keras 2 asks besides -------------------------------------------------------------------

    _supports_tf_logs = True
    """Logs need not be read for it at every step."""

    def _implements_train_batch_hooks(self) -> bool:
        return True

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False

    # --- inside --------------------------------------------------------------------------------------

    def _new_guard(self) -> Guard:
        return Guard(self._options.on_error == "raise", lambda _part, _sentence: None)

    def _watch(self, model: Any) -> FitWatch:
        options, reason = self._options, ""
        if options.validation_data is None:
            given = stack.validation_data_of(model)
            reason = backend(model).batches.side_effect(given)
            options = options if reason else dataclasses.replace(options, validation_data=given)
        recorder = Recorder(model, **options.arguments(), verbose=self._verbose)
        if reason:
            recorder.give_up_validation(reason)
        callbacks = stack.calling_list()
        if not self._move_last(callbacks):
            recorder.note(
                "BNLens could not be put behind the other callbacks: what those after it change when training ends is "
                "not in the last losses. List it last."
            )
        return FitWatch(model, recorder, options.log_dir, self.params, callbacks)

    def _move_last(self, callbacks: Any) -> bool:
        if callbacks is None or not any(callback is self for callback in callbacks.callbacks):
            return False
        # Another list, since Keras is going through this one.
        callbacks.callbacks = [*(callback for callback in callbacks.callbacks if callback is not self), self]
        return True

    def _current(self) -> FitWatch | None:
        """The watch of the fit that calls the running hook; None where that fit is not watched."""
        if len(self._watches) > 1:
            # A nested fit may have ended in an exception that the fit around it has caught.
            calling = stack.calling_list()
            if any(watch is not None and watch.callbacks is calling for watch in self._watches):
                self._leave(lambda watch: watch is not None and watch.callbacks is calling)
        return self._watches[-1] if self._watches else None

    def _leave(self, stays: Callable[[FitWatch | None], bool]) -> None:
        """Abandon the innermost fits up to one that stays."""
        while self._watches and not stays(self._watches[-1]):
            watch = self._watches.pop()
            if watch is not None:
                watch.abandon()

    def _end(self) -> None:
        """Leave the innermost fit; ``self.model`` is that of the fit around it again."""
        if (watch := self._current()) is not None:
            watch.end()
        del self._watches[-1:]
        for around in self._watches[-1:]:
            if around is not None:
                self.set_model(around.model)
                self.set_params(around.params)
