"""Recorder: snapshots, windows, probes, schedule and log, put together for any training loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tb_bnlens.capture.batches import Batches
from tb_bnlens.capture.data import is_chief
from tb_bnlens.capture.guard import Guard
from tb_bnlens.capture.layers import find_layers
from tb_bnlens.capture.log import RunLog
from tb_bnlens.capture.measure import Measurement
from tb_bnlens.capture.probe import Probe
from tb_bnlens.capture.prober import LOSSES, RECORD, Prober
from tb_bnlens.capture.rows import ProbeState, batch_statistics, layer_table
from tb_bnlens.capture.schedule import Schedule
from tb_bnlens.capture.segments import Segments
from tb_bnlens.capture.snapshots import Snapshot, SnapshotReader, WindowRecovery
from tb_bnlens.capture.watch import LayerWatch, replicas
from tb_bnlens.capture.windows import Windows
from tb_bnlens.frameworks.support import refused, unsupported
from tb_bnlens.metadata import LAYER_ROWS


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
        ignore: Mapping[str, Sequence[str]] | None = None,
        on_error: str = "warn",
        planned_steps: int | None = None,
    ):
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance is {tolerance!r}; it is a relative error and has to lie between 0 and 1")
        self._guard = Guard(on_error, self._note_fault)
        supported = not refused(unsupported(model), on_error)
        if supported and not isinstance(model, keras.Model):
            raise ValueError(f"model is a {type(model).__name__}; expected a keras.Model")
        self._model, self._loss, self._tolerance = model, loss, tolerance
        self._log = RunLog(log_dir, tolerance, ignore)
        self._log.planned_steps = planned_steps
        self._batches = Batches(probe_data, validation_data, self._guard)
        self._schedule = Schedule(overhead)
        self._schedule.last_step = planned_steps
        self._step = self._asked_at = 0
        self._quiet_until = 0.0
        self._begun = self._closed = False
        self._keep = True  # the first batch, from which calls are counted
        self._active = supported and is_chief()
        self._windows: Windows | None = None
        self._prober: Prober | None = None
        self._before: Snapshot | None = None

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
            self.meet_batch(keras.utils.pack_x_y_sample_weight(x, y, sample_weight))
            if self.quiet_for(steps):
                self.count_quiet(steps)
                return
            with self._schedule.all_timed():
                if self._begun:
                    self.after_step(steps)
                else:
                    # What the model was before its first step is past.
                    self.begin(1 if step is None else step)
                level = self.probe_due()
                if level is not None:
                    self._probe(level)
                    if self._prober is not None:
                        self._prober.write()

    def close(self) -> None:
        """Make the last probe and record, and flush. Safe to call twice."""
        if self._closed or not self._active:
            return
        if not self._begun:
            self._guard.give_up(RECORD, "the model was never built; call it on a batch before training")
        elif self._guard.works(RECORD):
            with self._guard("the end of the run"):
                self._finish()
        self._closed = True
        with self._guard(RECORD):
            self._log.close()

    def abandon(self) -> None:
        """Flush what is written, without a last probe: the weights may be others by now."""
        if not self._closed and self._active:
            self._closed = True
            with self._guard(RECORD):
                self._log.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- for BNLens, which meets the batch before the step ---------------------------------------------

    def guarded(self) -> contextlib.AbstractContextManager[None]:
        """Keep a fault of what is done around the recorder from ending training."""
        return self._guard(RECORD)

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

    @property
    def wants_to_keep(self) -> bool:
        """Whether the coming batch should be kept, probe or not."""
        self._keep = self._keep or self._schedule.keep_due(self._step)
        return self._keep

    @property
    def begun(self) -> bool:
        """Whether the record has begun: the model is built."""
        return self._begun

    @property
    def step(self) -> int:
        """Training steps made so far, those before the record began included."""
        return self._step

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

    def plan(self, steps: int) -> None:
        """Say how many steps the loop will make in all."""
        self._log.planned_steps = self._schedule.last_step = steps
        self._log.manifest_due = True

    def note(self, sentence: str) -> None:
        """Add a sentence that the tab shows with the run."""
        self._log.note(sentence)

    def event(self, kind: str, text: str, layers: Sequence[int] = ()) -> None:
        """Add an event at the present step to the record."""
        self._log.event(self._step, kind, text, layers)

    def give_up_losses(self, reason: str) -> None:
        """Say that the paired losses cannot be measured on training batches in this run, and why."""
        if self._batches.from_training:
            self._guard.give_up(LOSSES, reason, warn=False)

    def begin(self, step: int) -> None:
        """Start the record at this step once the model is built; does nothing before that and after."""
        if self._begun or not self.wanted or not self._model.built:
            return
        with self._guard(RECORD):
            self._begin(step)
            self._begun = True

    def probe_due(self) -> str | None:
        """What the schedule asks to be measured at the present weights."""
        return self._prober.due(self._step) if self._begun and self.wanted and self._prober is not None else None

    def meet_batch(self, batch: Any) -> None:
        """Remember a training batch for a probe, and its size as the usual one."""
        self._batches.meet(batch, self.wants_to_keep)
        self._keep = False
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

    def after_step(self, steps: int, fit_loss: float | None = None, short_batch: bool = False) -> None:
        """Take note that the loop has made ``steps`` more steps.

        Args:
            steps: steps made since the last call.
            fit_loss: what ``fit`` shows as the loss, a running mean.
            short_batch: the step was made on a last batch that is smaller than the others.
        """
        self._schedule.charge_quiet(self._step - self._asked_at)
        self._step += steps
        self._asked_at = self._step
        if not self._begun:
            return
        before, self._before = self._before, None
        if self._windows is not None:
            if before is not None or short_batch or self._schedule.snapshot_due(self._step):
                self.snapshot(short_batch)
            if before is not None and steps == 1:
                self._compare_update(before, self._windows)
            if self._windows.last_step == self._step and self._schedule.record_due(self._step):
                self._write_record(self._windows)
        if self._prober is not None:
            self._prober.step_made(fit_loss, self._now)
        kinds = ["snapshot"] if self._windows is not None else []
        if self._prober is not None and self._prober.works:
            kinds += ["probe", "full", *(["keep"] if self._batches.from_training else [])]
        self._quiet_until = self._schedule.quiet_until(self._step, kinds)

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

    # --- inside --------------------------------------------------------------------------------------

    def _begin(self, step: int) -> None:
        self._step = self._asked_at = step
        layers = find_layers(self._model)
        self._segments = Segments([t.channels for t in layers])
        self._recovery = WindowRecovery(layers, self._segments)
        self._reader = SnapshotReader(layers)
        self._watch = LayerWatch(layers, self._segments, self.event)
        self._state = ProbeState.empty(self._segments)
        if self._log.open():
            self.event("restart", "recording goes on in this directory")
        else:
            self.event("start", "recording begins")
        if layers:
            self._windows = Windows(self._reader.read(), step, self._recovery, self._segments)
        else:
            self.note("The model has no BatchNorm layer: only the paired losses are recorded.")
        with self._guard(LOSSES):
            probe = Probe(self._model, layers, self._segments, self._loss)
            self._watch.probe = probe
            measurement = Measurement(probe, self._state, self._recovery, self._segments, self._tolerance)
            self._prober = Prober(self._model, measurement, self._batches, self._schedule, self._guard, self._log)
        self._schedule.fit_records(4 * len(layers) * len(LAYER_ROWS))
        self._schedule.start()
        self._write_manifest()

    def _now(self) -> Snapshot:
        return self._reader.read() if self._windows is not None else Snapshot(np.zeros(0), np.zeros(0))

    def _probe(self, level: str) -> None:
        if self._prober is not None:
            snapshot = self._windows.last if self._windows is not None else self._now()
            self._prober.probe(level, self._step, snapshot, self._windows)

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
        if self._prober is not None and self._prober.last_step < self._step:
            self._probe("full")
            if self._windows is not None:
                self._prober.attribute(self._windows.last, self._tolerance)
            self._prober.write()
        if self._windows is not None:
            self._log.want_channels()
            self._write_record(self._windows)
        self._write_manifest()

    def _note_fault(self, part: str, sentence: str) -> None:
        self._log.note(sentence)
        if part == LOSSES:
            self._log.not_evaluated("losses", self._guard.given_up[part])
