"""Recorder: snapshots, windows, probes, schedule and log, put together for any training loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tb_bnlens.capture.batches import Batches
from tb_bnlens.capture.data import is_chief
from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.guard import LOSSES, RECORD, Guard
from tb_bnlens.capture.layers import find_layers, has_call, parts_built
from tb_bnlens.capture.log import RunLog
from tb_bnlens.capture.measure import Measurement
from tb_bnlens.capture.options import Options
from tb_bnlens.capture.outside import Outside
from tb_bnlens.capture.phases import Phase
from tb_bnlens.capture.probe import Probe
from tb_bnlens.capture.prober import Prober
from tb_bnlens.capture.reservoir import Kept
from tb_bnlens.capture.rows import ProbeState, batch_statistics, layer_table
from tb_bnlens.capture.schedule import Schedule
from tb_bnlens.capture.segments import Segments
from tb_bnlens.capture.snapshots import Snapshot, SnapshotReader, WindowRecovery
from tb_bnlens.capture.watch import LayerWatch, replicas
from tb_bnlens.capture.windows import Windows
from tb_bnlens.frameworks.support import refused, unsupported
from tb_bnlens.metadata import LAYER_ROWS

NOT_CALLED = (
    "training calls parts of the model and never the model itself, so there is no forward pass to measure; give the "
    "model a call() and compile(loss=...) to have the losses measured"
)


class Recorder:
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
    ):
        options = Options(log_dir, validation_data, probe_data, overhead, tolerance, ignore, on_error)
        supported = not refused(unsupported(model), options.on_error)
        if supported and not isinstance(model, keras.layers.Layer):
            raise ValueError(f"model is a {type(model).__name__}; expected a keras.Model")
        self._model, self._loss, self._tolerance = model, loss, options.tolerance
        self._log = RunLog(options.log_dir, options.tolerance, options.ignore)
        self._log.planned_steps = planned_steps
        self._guard = Guard(options.on_error == "raise", self._note_fault)
        self._batches = Batches(options.probe_data, options.validation_data, self._guard)
        self._schedule = Schedule(options.overhead)
        self._schedule.last_step = planned_steps
        self._step = self._asked_at = 0
        self._quiet_until = 0.0
        self._fits = 0
        self._earlier_updates: NDArray[np.floating[Any]] | None = None
        self._begun = self._closed = False
        self._active = supported and is_chief()
        self._windows: Windows | None = None
        self._prober: Prober | None = None
        self._before: Snapshot | None = None
        self._outside: Outside | None = None

    # --- the public loop -----------------------------------------------------------------------------

    def record(self, x: Any, y: Any = None, sample_weight: Any = None, *, step: int | None = None) -> None:
        """Take note of one training step that has just been made on this batch.

        Args:
            x: inputs of the batch.
            y: targets; without them losses need ``add_loss``.
            sample_weight: as in ``fit``.
            step: number of steps made so far; counted where it is not given.

        Raises:
            RuntimeError: called while a ``tf.function`` is traced.
        """
        if not tf.executing_eagerly():
            raise RuntimeError("Recorder.record was called inside a tf.function; call it after the compiled step")
        if not self.wanted:
            return
        steps = 1 if step is None else max(step - self._step, 1)
        with self._guard(RECORD):
            batch = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
            self.collect([batch], steps)
            self.meet_batch(batch)
            if self.quiet_for(steps):
                self.count_quiet(steps)
                return
            with self._schedule.all_timed():
                if self._begun:
                    self.after_step(steps)
                else:
                    # What the model was before its first step is past.
                    self.begin(step or 0, after_a_step=True)
                level = self.probe_due()
                if level is not None:
                    self._probe(level)
                    if self._prober is not None:
                        if self._windows is not None:
                            self._prober.compare_window(self._windows)
                        self._prober.write()

    def close(self, ended: str = "") -> None:
        """Make the last probe and record, and flush. Safe to call twice.

        Args:
            ended: how the run has ended, see ``Manifest.ended``; by the plan where it is not given.
        """
        if self._closed or not self._active:
            return
        early = self.planned_steps is not None and self._step < self.planned_steps
        self._log.ended, self._log.ended_step = ended or ("early" if early else "planned"), self._step
        if not self._begun:
            self._guard.give_up(RECORD, "the model was never built; call it on a batch before training")
        elif self._guard.works(RECORD):
            with self._guard("the end of the run"):
                self._finish()
        self._closed = True
        with self._guard(RECORD):
            self._log.close()

    def abandon(self) -> None:
        """Training was interrupted. Flush what is written, without a last probe: the weights may be others by now."""
        if not self._closed and self._active:
            self._closed = True
            # This may run when garbage is collected, in the middle of somebody's trace.
            with self._guard(RECORD), tf.init_scope():
                self._log.ended, self._log.ended_step = "interrupted", self._step
                if self._begun:
                    self._write_manifest()
                self._log.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close("interrupted" if kind else "")

    # --- for BNLens, which meets the batch before the step ---------------------------------------------

    def guarded(self) -> contextlib.AbstractContextManager[None]:
        """Keep a fault of what is done around the recorder from ending training."""
        return self._guard(RECORD)

    def fault(self, part: str, error: Exception) -> None:
        """Give up a part of the recording for an exception that was raised outside of a guard."""
        self._guard.fault(part, error)

    def all_timed(self) -> contextlib.AbstractContextManager[None]:
        """Count the block as a cost of recording, whatever is done in it."""
        return self._schedule.all_timed()

    def quiet_for(self, steps: int) -> bool:
        """Whether the coming steps may go by with no more than ``count_quiet``: nothing is due on either side."""
        return self._step + steps < self._quiet_until

    def count_quiet(self, steps: int) -> None:
        """Take note of steps made while quiet."""
        self._step += steps

    @property
    def wanted(self) -> bool:
        """Whether there is anything left to record."""
        return self._active and not self._closed and self._guard.works(RECORD)

    @property
    def wants_batch(self) -> bool:
        """Whether a look at the training batch is of use."""
        return self.wanted and self._begun and self._batches.from_training and self._guard.works(LOSSES)

    def wants_to_keep(self, steps: int = 1) -> bool:
        """Whether a batch of the coming steps should be kept, probe or not."""
        return self._batches.reservoir.wants(self._step, steps)

    def collect(self, batches: list[Any], steps: int = 1) -> None:
        """Keep what the final judgement needs of the coming batches. Each stands for so many steps."""
        if self._batches.from_training:
            self._batches.reservoir.offer(self._step, batches, steps)

    @property
    def begun(self) -> bool:
        """Whether the record has begun: the model is built."""
        return self._begun

    @property
    def step(self) -> int:
        """Training steps made so far, those before the record began included."""
        return self._step

    @property
    def directory(self) -> str | None:
        """Run directory of the record, without the suffix; None where nothing is recorded."""
        return self._log.log_dir if self._begun and self._active and self._guard.works(RECORD) else None

    @property
    def batch_size(self) -> int | None:
        """Samples in a usual training batch, None until one was seen."""
        return self._log.batch_size

    @property
    def loss_pending(self) -> bool:
        """Whether a probe waits for the step to be made."""
        return self._prober is not None and self._prober.pending

    @property
    def planned_steps(self) -> int | None:
        """Steps that the loop will make in all, None where it is not known."""
        return self._log.planned_steps

    def plan(self, steps: int, epoch_steps: int | None = None) -> None:
        """Say how many steps the loop will make in all, and in an epoch."""
        self._batches.reservoir.epoch_steps = epoch_steps
        self._log.planned_steps = self._schedule.last_step = self._batches.reservoir.planned_steps = steps
        self._log.manifest_due = True

    def note(self, sentence: str) -> None:
        """Add a sentence that the tab shows with the run."""
        self._log.note(sentence)

    def event(self, kind: str, text: str, layers: Sequence[int] = (), amounts: Sequence[float] = ()) -> None:
        """Add an event at the present step to the record."""
        self._log.event(self._step, kind, text, layers, amounts)

    def goes_on(self, phase: Phase) -> None:
        """Record a further fit of a network where the earlier ones are; called before ``begin``."""
        self._log.move(phase.directory)
        self._fits, self._earlier_updates = phase.fits, phase.updates
        self._batches.reservoir.resume(phase.batches, phase.fits)

    def kept_batches(self) -> list[Kept]:
        """Training batches for ``Phase.batches``."""
        return self._batches.reservoir.batches()

    @property
    def updates(self) -> NDArray[np.floating[Any]] | None:
        """BatchNorm updates of each layer so far, those of earlier fits included, [L]; None before the record."""
        return None if self._windows is None else self._windows.updates

    def give_up_losses(self, reason: str) -> None:
        """Say that the paired losses cannot be measured on training batches in this run, and why."""
        if self._batches.from_training:
            self._guard.give_up(LOSSES, reason, warn=False)

    def give_up_validation(self, reason: str) -> None:
        """Say why the losses on validation data are not measured."""
        self._guard.give_up("the losses on validation data", reason, warn=False)

    def begin(self, step: int, after_a_step: bool = False) -> None:
        """Start the record at this step once the model is built; does nothing before that and after.

        Args:
            step: steps made so far, as far as the optimizer knows.
            after_a_step: a step was just made, so whatever training calls is built by now.
        """
        if self._begun or not self.wanted:
            return
        with self._guard(RECORD):
            step = max(step, self._step + after_a_step)
            if self._is_built(after_a_step):
                self._begin(step)
                self._begun = True
            else:
                self._step = step

    def probe_due(self) -> str | None:
        """What the schedule asks to be measured at the present weights."""
        return self._prober.due(self._step) if self._begun and self.wanted and self._prober is not None else None

    def meet_batch(self, batch: Any) -> None:
        """Remember a training batch for a probe, and its size as the usual one."""
        self._batches.meet(batch)
        if self._log.batch_size is None:
            self._log.batch_size = self._batches.usual_size
            self._log.manifest_due = True

    def before_step(self, level: str) -> None:
        """Probe the batch on which the coming step is about to be trained."""
        if self._batches.to_probe() is None:
            return
        self.snapshot()
        self._probe(level)
        # The coming step shows the effective momentum only on the batch that its prediction was made on.
        if self._windows is not None and self.loss_pending and self._batches.from_training_whole:
            self._before = self._windows.last

    def after_step(
        self, steps: int, fit_loss: float | None = None, short_batch: bool = False, epoch_end: bool = False
    ) -> None:
        """Take note that the loop has made ``steps`` more steps.

        Args:
            steps: steps made since the last call.
            fit_loss: what ``fit`` shows as the loss, a running mean.
            short_batch: the step was made on a last batch that is smaller than the others.
            epoch_end: other code may change the model before the next step; see ``look_outside``.
        """
        self._schedule.charge_quiet(self._step - self._asked_at)
        self._step += steps
        self._asked_at = self._step
        if not self._begun:
            return
        before, self._before = self._before, None
        if self._windows is not None:
            if before is not None or short_batch or epoch_end or self._schedule.snapshot_due(self._step):
                self.snapshot(short_batch)
            if epoch_end and self._outside is not None:
                self._outside.mark()
            if before is not None and steps == 1:
                self._compare_update(before, self._windows)
            if self._windows.last_step == self._step and self._schedule.record_due(self._step):
                self._write_record(self._windows)
        if self._prober is not None:
            self._prober.step_made(fit_loss, self._now)
        kinds = ["snapshot"] if self._windows is not None else []
        if self._prober is not None and self._prober.works:
            kinds += ["probe", "full"]
        self._quiet_until = self._schedule.quiet_until(self._step, kinds)
        if self.wants_batch:
            # Asked before the step that is made on the batch.
            self._quiet_until = min(self._quiet_until, self._batches.reservoir.next_step(self._step))

    def snapshot(self, short_batch: bool = False) -> None:
        """Read the moving statistics now, unless that was done at this step."""
        windows = self._windows
        if windows is None or windows.last_step == self._step or not self.wanted:
            return
        if self._prober is not None:
            self._prober.count_calls()
        with self._guard(RECORD), self._schedule.timed("snapshot"):
            now = self._reader.read()
            updates = self._watch.updates(windows.last, now, self._step - windows.last_step)
            windows.add(now, self._step, updates, short_batch)

    def look_outside(self, at_epoch: bool = True) -> None:
        """See whether something other than a training step has changed the model since the last one.

        Args:
            at_epoch: an epoch begins or training ends, where callbacks run; elsewhere most calls return at once.
        """
        outside, windows = self._outside, self._windows
        if outside is None or windows is None or windows.last_step != self._step or not self.wanted:
            return
        if not at_epoch and not outside.due(self._step):
            return
        with self._guard(RECORD), self._schedule.timed("snapshot"):
            now = self._reader.read()
            change = outside.change(windows.last, now)
            if change is None:
                return
            windows.restart(now)
            if outside.to_report:
                self.event(change.kind, change.text, change.layers, change.amounts)

    @property
    def changed_outside(self) -> bool:
        """Whether something other than training steps has changed the model in this run."""
        return self._outside is not None and self._outside.seen > 0

    # --- inside --------------------------------------------------------------------------------------

    def _is_built(self, after_a_step: bool) -> bool:
        if after_a_step:
            return bool(self._model.built or find_layers(self._model))
        return bool(self._model.built if has_call(self._model) else parts_built(self._model))

    def _begin(self, step: int) -> None:
        self._step = self._asked_at = step
        layers = find_layers(self._model)
        self._segments = Segments([t.channels for t in layers])
        self._recovery = WindowRecovery(layers, self._segments)
        self._reader = SnapshotReader(layers)
        self._watch = LayerWatch(layers, self._segments, self.event)
        self._state = ProbeState.empty(self._segments)
        held = self._log.open()
        if self._fits:
            self.event("fit", f"fit {self._fits + 1} of this network begins")
        elif held:
            self.event("restart", "recording goes on in this directory")
        else:
            self.event("start", "recording begins")
        if layers:
            self._windows = Windows(self._reader.read(), step, self._recovery, self._segments)
            if self._earlier_updates is not None and len(self._earlier_updates) == len(layers):
                self._windows.updates = np.array(self._earlier_updates)
            self._outside = Outside(self._model, self._recovery, self._segments)
        else:
            self.note("The model has no BatchNorm layer: only the paired losses are recorded.")
        with self._guard(LOSSES):
            if not (self._model.built and has_call(self._model)):
                raise NotEvaluated(NOT_CALLED)
            probe = Probe(self._model, layers, self._segments, self._loss)
            self._watch.probe = probe
            measurement = Measurement(probe, self._state, self._recovery, self._segments, self._tolerance)
            self._prober = Prober(
                self._model, measurement, self._batches, self._schedule, self._guard, self._log, self._loss
            )
        self._schedule.fit_records(4 * len(layers) * len(LAYER_ROWS))
        self._schedule.start()
        self._write_manifest()

    def _now(self) -> Snapshot:
        return self._reader.read() if self._windows is not None else Snapshot(np.zeros(0), np.zeros(0))

    def _probe(self, level: str, last: bool = False) -> None:
        if self._prober is not None:
            snapshot = self._windows.last if self._windows is not None else self._now()
            self._prober.probe(level, self._step, snapshot, self._windows)
            if level == "full" and not last:
                self._judge("interim")

    def _judge(self, moment: str) -> None:
        if self._prober is not None and self._windows is not None:
            states = self._watch.states(self._windows)
            self._prober.judge(self._step, self._now(), self._windows, states, moment)

    def _compare_update(self, before: Snapshot, windows: Windows) -> None:
        if self._prober is not None:
            with self._guard("the effective momentum"):
                estimate = self._prober.momentum_of_update(before, windows.last)
                self._state.momentum_effective = self._watch.use_effective_momentum(estimate, self._recovery)

    def _write_record(self, windows: Windows) -> None:
        with self._guard(RECORD), self._schedule.timed("record"):
            self._watch.look_for_changes()
            for caveat in self._watch.caveats():
                self.note(caveat)
            table = layer_table(
                windows,
                self._state,
                self._recovery,
                self._segments,
                self._watch.momenta,
                self._watch.states(windows),
            )
            windows.forget_since()
            self._log.write_layers(table, self._step)
            if self._log.channels_due(self._step):
                self._write_channels(windows)
            if self._log.manifest_due:
                self._write_manifest()

    def _write_channels(self, windows: Windows) -> None:
        mu, v = batch_statistics(windows, self._state)
        packed = np.stack([mu, v, windows.last.mean, self._recovery.moving_variance(windows.last)])
        self._log.write_channels(self._segments.split(packed), self._step)

    def _write_manifest(self) -> None:
        self._log.write_manifest(self._watch.describe(), replicas(self._windows), self._step)

    def _finish(self) -> None:
        self.snapshot()
        if self._windows is not None:
            # What the user will hold: other code may have changed it since the last step.
            self._windows.restart(self._reader.read())
        if self._prober is not None and self._prober.last_step < self._step:
            self._probe("full", last=True)
            if self._windows is not None:
                self._prober.attribute(self._windows.last, self._tolerance)
            self._prober.write()
        if self._windows is not None:
            self._judge("end")
            self._log.want_channels()
            self._write_record(self._windows)
        self._write_manifest()

    def _note_fault(self, part: str, sentence: str) -> None:
        self._log.note(sentence)
        if part == LOSSES:
            self._log.not_evaluated("losses", self._guard.given_up[part])
