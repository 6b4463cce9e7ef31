"""A record that has begun: snapshots, windows, probes, schedule and log of a built model, put together."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.adapter import ModelAdapter, StatisticsReader
from tb_bnlens.capture.batches import Batches
from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.guard import LOSSES, RECORD, Guard, weakly
from tb_bnlens.capture.log import RunLog
from tb_bnlens.capture.measure import Measurement
from tb_bnlens.capture.outside import Outside
from tb_bnlens.capture.passes import NoPasses, Runner
from tb_bnlens.capture.phases import Phase
from tb_bnlens.capture.prober import Prober
from tb_bnlens.capture.rows import ProbeState, batch_statistics, layer_table
from tb_bnlens.capture.schedule import Level, Schedule
from tb_bnlens.capture.watch import LayerWatch, replicas
from tb_bnlens.metadata import LAYER_ROWS, EventKind, Moment
from tb_bnlens.moments.recovery import Snapshot, WindowRecovery
from tb_bnlens.moments.segments import Segments
from tb_bnlens.moments.windows import Windows

Array = NDArray[np.floating[Any]]


class Recording:
    """Records a training loop from a step on.

    Args:
        adapter: a model whose layers exist.
        log: where the record goes; it is opened here.
        guard: keeps faults inside.
        batches: what is probed.
        schedule: when to record, and what it may cost.
        tolerance: relative error of the moving statistics that counts as converged.
        step: steps made so far.
        earlier: earlier fits of this network in the record.
        lacking: names of the layers that began without statistics; see ``without_statistics``.

    Raises:
        NotRecorded: the directory cannot be written.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        log: RunLog,
        guard: Guard,
        batches: Batches,
        schedule: Schedule,
        tolerance: float,
        step: int,
        earlier: Phase,
        lacking: Collection[str] = (),
    ):
        self._log, self._guard, self._batches, self._schedule = log, guard, batches, schedule
        self._tolerance = tolerance
        self.step = self._asked_at = step
        """Training steps made so far."""
        self.quiet_until = 0.0
        """Nothing is due on either side of the steps before this one: no more is done than to count them."""
        self._short_batch = False
        self._before: Snapshot | None = None
        layers = adapter.layers()
        self._segments = Segments([t.channels for t in layers])
        self._recovery = WindowRecovery(layers, self._segments)
        self._reader = adapter.reader(layers) if layers else _NoLayers()
        self._watch = LayerWatch(layers, self._segments, weakly(self._event), adapter.framework)
        self._state = ProbeState.empty(self._segments)
        log.framework, log.called, log.untracked = adapter.framework, adapter.called, adapter.untracked()
        self._say_how_it_begins(adapter, log.open(), earlier.fits)
        self._watch.compare_with(earlier.attributes)
        self._windows = Windows(self._reader.read(), step, self._recovery, self._segments)
        bare = [i for i, layer in enumerate(layers) if layer.name in lacking]
        if bare and not earlier.fits:
            text = "recording begins with the moving statistics of new layers, and weights that are not"
            self._event(EventKind.NEW_STATISTICS, text, bare)
        left_out = () if earlier.fits else adapter.left_out(layers)
        if left_out:
            self._event(EventKind.LEFT_OUT, "the optimizer was built without the weights of trainable layers", left_out)
        if earlier.updates is not None and len(earlier.updates) == len(layers):
            self._windows.updates = np.array(earlier.updates)
        self._outside = Outside(adapter.weights_mark, self._recovery, self._segments)
        runner: Runner = NoPasses()
        with guard(LOSSES):
            runner = adapter.runner(layers, self._segments)
        self._watch.runner = runner
        if runner.carries_state:
            log.note(
                "The model has a stateful RNN, whose states a batch needs that is measured later. So the losses are "
                "those of probes before a step."
            )
        measurement = Measurement(runner, adapter.batches, self._state, self._recovery, self._segments, tolerance)
        self._prober = Prober(adapter, measurement, batches, schedule, guard, log)
        schedule.fit_records(4 * len(layers) * len(LAYER_ROWS))
        log.fit_channels(int(self._segments.sizes.sum()))
        schedule.start(step)
        self.write_manifest()

    # --- what is asked of it -------------------------------------------------------------------------

    @property
    def loss_pending(self) -> bool:
        """Whether a probe waits for the step to be made."""
        return self._prober.pending

    @property
    def updates(self) -> Array:
        """BatchNorm updates of each layer so far, those of earlier fits included, [L]."""
        return self._windows.updates

    @property
    def attributes(self) -> Any:
        """See ``LayerWatch.attributes``."""
        return self._watch.attributes

    @property
    def changed_outside(self) -> bool:
        """Whether something other than training steps has changed the model in this run."""
        return self._outside.seen > 0

    # --- around a step -------------------------------------------------------------------------------

    def before(self, steps: int, take: Callable[[], list[Any]], look: bool) -> None:
        """Measure what is due at the weights before so many steps; see ``LoopRecorder.before``."""
        level, self._short_batch = self._prober.due(self.step), False
        if not self._wants_batches():
            if level is not None:
                self._probe_before(level)
            return
        if not (level or look or self._batches.reservoir.wants(self.step, steps)):
            return
        try:
            batches = take()
        except NotEvaluated as reason:
            self._nothing_seen(str(reason))
            return
        if not batches:
            return
        self._batches.reservoir.offer(self.step, batches)
        # With several steps at once only the first batch meets the weights as they are now.
        if self._batches.is_short(batches[0]):
            # It has losses unlike the others': only its statistics are recorded.
            self._short_batch = steps == 1
            self.snapshot()
            return
        self.meet(batches[0])
        if level is not None:
            self._probe_before(level)

    def after(
        self,
        steps: int,
        fit_loss: float | None = None,
        epoch_end: bool = False,
        *,
        short: bool = False,
        around_short: bool = False,
    ) -> None:
        """Take note that the loop has made so many steps; see ``LoopRecorder.after``.

        Args:
            steps: as there.
            fit_loss: as there.
            epoch_end: as there.
            short: for a loop that shows its batch after the step: it had fewer samples than usual.
            around_short: the statistics are wanted now, before or after such a step.
        """
        self._schedule.charge_quiet(self.step - self._asked_at)
        self.step += steps
        self._asked_at = self.step
        before, self._before = self._before, None
        if len(self._segments):
            windows = self._windows
            alone = windows.step == self.step - 1  # a longer window holds other batches as well
            short = self._short_batch or (short and alone)
            if before is not None or short or around_short or epoch_end or self._schedule.snapshot_due(self.step):
                self.snapshot(short)
            if epoch_end:
                self._outside.mark()
            if before is not None and steps == 1:
                self._compare_update(before)
            if windows.step == self.step and self._schedule.record_due(self.step):
                self._write_record()
        self._prober.step_made(fit_loss, self._reader.read)
        self.quiet_until = self._next_asked()

    def probe_if_due(self) -> None:
        """For a loop that shows its batch after the step: measure what is due on the newest one."""
        self._prober.settle(self.step)
        level = self._prober.due(self.step)
        if level is not None:
            self._probe(level)
            self._prober.compare_window(self._windows)
            self._prober.write()
            if self._prober.unsettled:
                self.quiet_until = self.step

    def meet(self, batch: Any) -> None:
        """Remember a training batch for a probe, and its size as the usual one."""
        self._batches.meet(batch)
        self._log.meet_size(self._batches.usual_size)

    def snapshot(self, short_batch: bool = False, ended: bool = False) -> None:
        """Read the moving statistics now, unless that was done at this step; ``ended``: no step follows."""
        windows = self._windows
        if not len(self._segments) or windows.step == self.step:
            return
        self._prober.count_calls()
        with self._guard(RECORD), self._schedule.timed("snapshot"):
            now = self._reader.read()
            steps = self.step - windows.step
            updates = self._watch.updates(windows.last, now, steps)
            besides = self._watch.updated_besides(updates, steps, ended)
            if besides:
                text = self._outside.counted(besides)
                if self._outside.to_report:
                    self._log.event(self.step, EventKind.OUTSIDE, text, besides)
            if now.counts is not None and self._watch.momentum_changed():
                # PyTorch reads it at each call: some of the updates were made with the old one, some with the new.
                self._watch.look_for_changes()
                windows.set_momentums(*self._watch.beta_and_gain, now, self.step, updates)
            else:
                windows.add(now, self.step, updates, short_batch)

    def look_outside(self, at_epoch: bool) -> None:
        """See whether something other than a training step has changed the model since the last one."""
        windows = self._windows
        if not len(self._segments) or windows.step != self.step:
            return
        if not at_epoch and not self._outside.due(self.step):
            return
        with self._guard(RECORD), self._schedule.timed("snapshot"):
            now = self._reader.read()
            change = self._outside.change(windows.last, now, self._watch.rest_of_step(windows.last, now))
            if change is None:
                return
            windows.restart(now)
            if self._outside.to_report:
                self._log.event(self.step, change.kind, change.text, change.layers, change.amounts)

    def finish(self) -> None:
        """Make the last probe and record."""
        self.look_outside(at_epoch=True)
        self.snapshot(ended=True)
        if len(self._segments):
            # What the user will hold: other code may have changed it since the last step.
            self._windows.restart(self._reader.read())
        if self._prober.probed_step < self.step and not self._watch.runner.carries_state:
            self._probe(Level.FULL, last=True)
            if len(self._segments):
                self._prober.attribute(self._windows.last, self._tolerance)
            self._prober.write()
        if self._prober.works and self._batches.to_probe() is None:
            self._nothing_seen("no training batch was seen")
        self._judge(Moment.END)
        if len(self._segments):
            self._log.want_channels()
            self._write_record()
        self.write_manifest()

    def write_manifest(self) -> None:
        """Write what is known of the run as a whole."""
        self._log.unreached = self._watch.runner.unreached
        self._calls = self._watch.calls()
        self._log.write_manifest(self._watch.describe(), replicas(self._windows), self.step)

    # --- inside --------------------------------------------------------------------------------------

    def _nothing_seen(self, reason: str) -> None:
        if self._prober.probed_step < 0:
            self._log.not_evaluated("losses", reason)

    def _event(self, kind: EventKind, text: str, layers: Any = ()) -> None:
        self._log.event(self.step, kind, text, layers)

    def _say_how_it_begins(self, adapter: ModelAdapter, held: bool, fits: int) -> None:
        if fits:
            self._event(EventKind.FIT, f"fit {fits + 1} of this network begins")
        elif held:
            self._event(EventKind.RESTART, "recording continues in this directory")
        else:
            self._event(EventKind.START, "recording begins")
        if not len(self._segments):
            statistics = " with its own statistics" if self._log.untracked else ""
            self._log.note(f"The model has no BatchNorm layer{statistics}: only the paired losses are recorded.")
        for sentence in adapter.not_read():
            self._log.note(sentence)

    def _wants_batches(self) -> bool:
        return self._batches.from_training and self._prober.works

    def _next_asked(self) -> float:
        kinds: list[str] = ["snapshot"] if len(self._segments) else []
        if self._prober.works:
            kinds += list(Level)
        quiet_until = self._schedule.quiet_until(self.step, kinds)
        if self._wants_batches():
            # Asked before the step that is made on the batch.
            quiet_until = min(quiet_until, self._batches.reservoir.next_step(self.step))
        return quiet_until

    def _probe_before(self, level: Level) -> None:
        """Probe the batch on which the coming step is about to be trained."""
        if self._batches.to_probe() is None:
            return
        self.snapshot()
        self._probe(level)
        # The coming step shows the effective momentum only on the batch that its prediction was made on.
        if len(self._segments) and self._prober.pending and self._batches.from_training_whole:
            self._before = self._windows.last

    def _probe(self, level: Level, last: bool = False) -> None:
        self._prober.probe(level, self.step, self._windows)
        if level == Level.FULL and not last:
            self._judge(Moment.INTERIM)

    def _judge(self, moment: Moment) -> None:
        runner = self._watch.runner
        told = len(self._segments) or (moment == Moment.END and runner.always_by_batch)
        if told and not runner.carries_state:
            states = self._watch.states(self._windows)
            self._prober.judge(self.step, self._reader.read(), self._windows, states, moment)

    def _compare_update(self, before: Snapshot) -> None:
        with self._guard("the effective momentum"):
            estimate = self._prober.momentum_of_update(before, self._windows.last)
            self._state.momentum_effective = self._watch.use_effective_momentum(estimate, self._recovery)

    def _write_record(self) -> None:
        windows = self._windows
        with self._guard(RECORD), self._schedule.timed("record"):
            self._watch.look_for_changes()
            for caveat in self._watch.caveats():
                self._log.note(caveat)
            states = self._watch.states(windows)
            table = layer_table(windows, self._state, self._recovery, self._segments, self._watch.momentums, states)
            windows.forget_since()
            self._log.write_layers(table, self.step)
            if self._log.channels_due(self.step):
                self._write_channels()
            counted = not np.array_equal(self._calls, self._watch.calls(), equal_nan=True)
            if self._log.manifest_due or counted:
                self.write_manifest()

    def _write_channels(self) -> None:
        last = self._windows.last
        seen, moving = batch_statistics(self._windows, self._state), self._recovery.moving(last)
        packed = np.stack([seen.mean, seen.variance, moving.mean, moving.variance])
        self._log.write_channels(self._segments.split(packed), self.step)


class _NoLayers(StatisticsReader):
    """Reads nothing: the model has no BatchNorm layer."""

    def read(self) -> Snapshot:
        return Snapshot(np.zeros(0), np.zeros(0))
