"""LoopRecorder: waits until the model is built, and then records its training, in any loop and any framework."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tb_bnlens.capture.adapter import ModelAdapter
from tb_bnlens.capture.batches import Batches
from tb_bnlens.capture.guard import LOSSES, NOTHING, RECORD, START, VALIDATION, Guard, weakly
from tb_bnlens.capture.log import RunLog
from tb_bnlens.capture.options import Options, require_steps, require_verbose
from tb_bnlens.capture.phases import Phase
from tb_bnlens.capture.recording import Recording
from tb_bnlens.capture.reservoir import Kept
from tb_bnlens.capture.schedule import Schedule
from tb_bnlens.capture.short_batches import ShortBatches
from tb_bnlens.metadata import EventKind

R = TypeVar("R", bound="LoopRecorder")


class LoopRecorder:
    """Records a training loop. Each framework's ``Recorder`` is one of these with an adapter for its models.

    A loop calls ``step_made`` after each step, or ``before`` and ``after`` around it. Faults stay inside. A copy, and
    what was pickled, records nothing: a trainer that holds a recorder can be copied and saved.

    Args:
        adapter: the model.
        options: what the user wants, checked.
        planned_steps: training steps that the loop will make in all, where known.
        verbose: print the verdict in one line when the record is closed.
    """

    # A copy, or a recorder of a model that is not supported, never gets further. It does nothing and needs no
    # framework.
    _active, _closed, _waited, _told = False, False, 0, False
    _recording: Recording | None = None

    def __init__(
        self,
        adapter: ModelAdapter,
        options: Options,
        planned_steps: int | None = None,
        *,
        verbose: int = 1,
    ):
        require_verbose(verbose)
        require_steps(planned_steps)
        self._adapter, self._tolerance, self._verbose = adapter, options.tolerance, bool(verbose)
        self._log = RunLog(options.log_dir, options.tolerance, options.ignore, adapter.versions)
        self._guard = Guard(options.on_error == "raise", weakly(self._note_fault))
        self._batches = Batches(adapter.batches, options.probe_data, options.validation_data, self._guard)
        self._schedule = Schedule(options.overhead)
        self._plan(planned_steps)
        self._short_batches = ShortBatches()
        self._earlier = Phase(options.log_dir)
        self._active = adapter.is_chief()
        self._lacking: frozenset[str] = frozenset()
        self._look_for_statistics()

    def _look_for_statistics(self) -> None:
        """Before the first step: see which layers have been trained and have the statistics of new layers."""
        if self._active:
            with self._guard(START):
                self._lacking = frozenset(t.name for t in self._adapter.layers() if t.lacks_statistics)

    def __reduce__(self) -> tuple[Any, ...]:
        return _idle, (type(self),)

    # --- a loop of the user's own --------------------------------------------------------------------

    def passes_by(self, batch: Any) -> bool:
        """Count one step on a usual batch while nothing is due; every other one is for ``step_made``.

        Most steps end here. They call few functions, since the code of each has left the processor's caches by then:
        with all of ``step_made`` they took 87 us after a step of 15 ms, and 6 us one after another.
        """
        recording = self._recording
        if recording is None or recording.step + 1 >= recording.quiet_until:
            return False
        if recording.step + 2 == self._short_batches.expected:
            return False
        try:
            usual = self._batches.meet_usual(batch)
        except Exception:
            return False  # and it is raised again where it is kept inside
        recording.step += usual
        return usual

    def step_made(self, batch: Any, step: int | None = None) -> None:
        """Take note of one training step that has just been made on this batch.

        Args:
            batch: as the adapter's ``batches`` and ``runner`` take it.
            step: number of steps made so far; counted where it is not given.
        """
        if (step is None and self.passes_by(batch)) or not self.wanted:
            return
        steps = 1 if step is None else max(step - self.step, 1)
        with self._guard(RECORD):
            self._batches.collect(self.step, batch, steps)
            self._log.meet_size(self._batches.usual_size)
            short = self._batches.is_short(batch)
            around = self._short_batches.meet(self.step + steps, short) and steps == 1
            recording = self._recording
            if recording is not None and self.quiet_for(steps) and not around:
                recording.step += steps
                return
            with self._schedule.all_timed():
                if recording is not None:
                    recording.after(steps, short=short, around_short=around)
                else:
                    # What the model was before its first step is past.
                    self.begin(step or 0, after_a_step=True)
                # The last batch of an epoch has losses unlike the others'.
                if self._recording is not None and self.wanted and not (short and around):
                    self._recording.probe_if_due()
                    self._warn_of_no_loss()

    def _warn_of_no_loss(self) -> None:
        """Say once, early in the run, that there is no loss."""
        why = self._log.why_not("losses")
        if why and not self._told:
            self._told = True
            if self._guard.works(LOSSES):
                self._guard.warn_of(LOSSES, why)

    def close(self, ended: str = "") -> None:
        """Make the last probe and record, flush, and print the verdict. Safe to call twice.

        Args:
            ended: how the run has ended, see ``Manifest.ended``; by the plan where it is not given.
        """
        if self._closed or not self._active:
            return
        early = self.planned_steps is not None and self.step < self.planned_steps
        self._log.ended, self._log.ended_step = ended or ("early" if early else "planned"), self.step
        works = self._guard.works(RECORD)
        if works and self._recording is None:
            unused = not self._waited and self._batches.usual_size is None
            never_built = "the model was never built; call it on a batch before training"
            self._guard.give_up(NOTHING, "no training step was shown to it" if unused else never_built)
        elif works and self._recording is not None:
            with self._guard("the end of the run"):
                self._recording.finish()
        self._closed = True
        with self._guard(RECORD):
            self._log.close()
        if self._verbose and self.directory is not None:
            self._print_verdict(self.directory)

    def abandon(self) -> None:
        """Training was interrupted. Flush what is written, without a last probe: the weights may be others by now."""
        if not self._closed and self._active:
            self._closed = True
            # This may run when garbage is collected, in the middle of somebody's trace: the model is not called.
            with self._guard(RECORD):
                self._log.ended, self._log.ended_step = "interrupted", self.step
                if self._recording is not None:
                    self._recording.write_manifest()
                self._log.close()

    def __enter__(self: R) -> R:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close("interrupted" if kind else "")

    # --- around a step, for a callback that meets the batch before it, and calls these while ``guarded`` ---

    def begin(self, step: int, after_a_step: bool = False) -> None:
        """Start the record at this step once the model is built; does nothing before that and after.

        Args:
            step: steps made so far, as far as the optimizer knows.
            after_a_step: a step was just made, so whatever training calls is built by now.
        """
        if self._recording is not None or not self.wanted:
            return
        with self._guard(RECORD):
            step = max(step, self._waited + after_a_step)
            if not after_a_step:  # other callbacks may have loaded the model since
                self._look_for_statistics()
            if self._adapter.is_built(after_a_step):
                self._recording = Recording(
                    self._adapter,
                    self._log,
                    self._guard,
                    self._batches,
                    self._schedule,
                    self._tolerance,
                    step,
                    self._earlier,
                    self._lacking,
                )
            else:
                self._waited = step

    def before(self, steps: int, take: Callable[[], list[Any]], look: bool = False) -> None:
        """Measure what is due at the weights as they are, before so many steps are made at once.

        Args:
            steps: how many.
            take: gives the batches of the coming steps; called once at most, and only where they are of use.
            look: look at the batches whatever is due: the coming one may be short.
        """
        if self._recording is not None and self.wanted:
            self._recording.before(steps, take, look)

    def after(self, steps: int, fit_loss: float | None = None, epoch_end: bool = False) -> None:
        """Take note that the loop has made ``steps`` more steps.

        Args:
            steps: steps made since the last call.
            fit_loss: what the loop shows as the loss, a running mean.
            epoch_end: other code may change the model before the next step; see ``look_outside``.
        """
        if self._recording is not None and self.wanted:
            self._recording.after(steps, fit_loss, epoch_end)

    def look_outside(self, at_epoch: bool = True) -> None:
        """See whether something other than a training step has changed the model since the last one.

        Args:
            at_epoch: an epoch begins or training ends, where callbacks run; elsewhere most calls return at once.
        """
        if self._recording is not None and self.wanted:
            self._recording.look_outside(at_epoch)

    def quiet_for(self, steps: int) -> bool:
        """Whether the coming steps may go by and be counted alone: nothing is due on either side."""
        recording = self._recording
        return recording is not None and recording.step + steps < recording.quiet_until

    def all_timed(self) -> contextlib.AbstractContextManager[None]:
        """Count the block as a cost of recording, whatever is done in it."""
        return self._schedule.all_timed()

    def guarded(self) -> contextlib.AbstractContextManager[None]:
        """Keep a fault of what is done around the recorder from ending training."""
        return self._guard(RECORD)

    # --- what a callback knows besides ---------------------------------------------------------------

    def plan(self, steps: int, epoch_steps: int | None = None) -> None:
        """Say how many steps the loop will make in all, and in an epoch."""
        self._batches.reservoir.epoch_steps = epoch_steps
        self._plan(steps)
        self._log.manifest_due = True

    def goes_on(self, phase: Phase) -> None:
        """Record a further fit of a network where the earlier ones are; called before ``begin``."""
        self._log.move(phase.directory)
        self._earlier = phase
        self._batches.reservoir.resume(phase.batches, phase.fits)

    def note(self, sentence: str) -> None:
        """Add a sentence that the tab shows with the run."""
        self._log.note(sentence)

    def event(self, kind: EventKind, text: str, layers: Sequence[int] = ()) -> None:
        """Add an event at the present step to the record."""
        self._log.event(self.step, kind, text, layers)

    def fault(self, part: str, error: Exception) -> None:
        """Give up a part of the recording for an exception that was raised outside of a guard."""
        self._guard.fault(part, error)

    def give_up_losses(self, reason: str) -> None:
        """Say that the paired losses cannot be measured on training batches in this run, and why."""
        if self._batches.from_training:
            self._guard.give_up(LOSSES, reason, warn=False)

    def give_up_validation(self, reason: str) -> None:
        """Say why the losses on validation data are not measured."""
        self._guard.give_up(VALIDATION, reason, warn=False)

    # --- how far it is -------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether it has nothing to record by: a copy, or one of a model that is not supported."""
        return "_log" not in vars(self)

    @property
    def wanted(self) -> bool:
        """Whether there is anything left to record."""
        return self._active and not self._closed and self._guard.works(RECORD)

    @property
    def begun(self) -> bool:
        """Whether the record has begun: the model is built."""
        return self._recording is not None

    @property
    def recording(self) -> Recording | None:
        """What records; None before the record has begun."""
        return self._recording

    @property
    def step(self) -> int:
        """Training steps made so far, those before the record began included."""
        return self._waited if self._recording is None else self._recording.step

    @property
    def planned_steps(self) -> int | None:
        """Steps that the loop will make in all, None where it is not known."""
        return None if self.idle else self._log.planned_steps

    @property
    def directory(self) -> str | None:
        """Run directory of the record, without the suffix; None where nothing is recorded."""
        return self._log.log_dir if self.begun and self._active and self._guard.works(RECORD) else None

    @property
    def loss_pending(self) -> bool:
        """Whether a probe waits for the step to be made."""
        return self._recording is not None and self._recording.loss_pending

    @property
    def changed_outside(self) -> bool:
        """Whether something other than training steps has changed the model in this run."""
        return self._recording is not None and self._recording.changed_outside

    @property
    def updates(self) -> Any:
        """BatchNorm updates of each layer, those of earlier fits included, for ``Phase.updates``; None before any."""
        return None if self._recording is None else self._recording.updates

    @property
    def attributes(self) -> Any:
        """``trainable`` and ``momentum`` of each layer when they were last read, for ``Phase.attributes``."""
        return None if self._recording is None else self._recording.attributes

    def kept_batches(self) -> list[Kept]:
        """Training batches for ``Phase.batches``."""
        return self._batches.reservoir.batches()

    def _plan(self, steps: int | None) -> None:
        self._log.planned_steps = self._schedule.planned_steps = self._batches.reservoir.planned_steps = steps

    def _print_verdict(self, directory: str) -> None:
        with self._guard("the line at the end of training"):
            # Recording needs no diagnosis, so it is not loaded before.
            from tb_bnlens.closing import print_closing_line

            print_closing_line(directory)

    def _note_fault(self, part: str, sentence: str) -> None:
        self._log.note(sentence)
        if part == LOSSES:
            self._log.not_evaluated("losses", self._guard.given_up[part])


def _idle(kind: type[LoopRecorder]) -> LoopRecorder:
    return kind.__new__(kind)
