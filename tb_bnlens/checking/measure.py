"""A model's weights as they are, measured and put into the form of a run's record."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens import record
from tb_bnlens.analysis.enough import may_suffice
from tb_bnlens.capture.adapter import ModelAdapter
from tb_bnlens.capture.errors import NotEvaluated
from tb_bnlens.capture.evidence import Judgement
from tb_bnlens.capture.log import own_version
from tb_bnlens.capture.passes import moments_of
from tb_bnlens.capture.reservoir import Kept
from tb_bnlens.capture.rows import ProbeState, layer_table
from tb_bnlens.capture.still import still
from tb_bnlens.capture.subject import Subject
from tb_bnlens.capture.targets import entropy_in_all
from tb_bnlens.capture.watch import LayerWatch
from tb_bnlens.checking.runner import Remembering
from tb_bnlens.checking.start import start_left
from tb_bnlens.history import Channels, Evidence, History, Manifest
from tb_bnlens.metadata import LAYER_INDEX, LAYER_ROWS, REPLAY_ROWS, Moment, State
from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.recovery import WindowRecovery
from tb_bnlens.moments.segments import Segments
from tb_bnlens.moments.statistics import BatchMoments
from tb_bnlens.moments.windows import Windows

Array = NDArray[np.floating[Any]]

OF_THE_COURSE = ("start_distance", *REPLAY_ROWS)
"""Rows of the layer table that compare with the beginning of a record, which a check does not have."""
FIRST_LOOK = 8
"""Batches of the first look: their mean has a third of the noise of one batch."""
CONTRADICTED = 0.1
"""More of the start in the statistics than the steps of the optimizer leave, by this much, is another error that looks
like it: twice the scale of the inputs is one."""


@dataclass(frozen=True)
class Checked:
    """What a check has measured."""

    history: History
    channels: tuple[Channels, ...] = ()
    """Of each layer."""


def looks(
    adapter: ModelAdapter,
    run: str,
    batches: Sequence[Any],
    validation: Sequence[Any] = (),
    tolerance: float = 0.1,
    steps: int = 0,
) -> Iterator[Checked]:
    """Measure a model at its present weights. Nothing in it changes.

    The first look is at some of the batches, where there are many: it is left out where more will be needed for sure.
    The last one is at all of them, and the caller need not take it.

    Args:
        adapter: a built model.
        run: name for the report.
        batches: at least one.
        validation: batches of validation data.
        tolerance: relative error of the moving statistics that counts as converged.
        steps: training steps that it has had, 0 where that is not known.
    """
    if adapter.layers():
        yield from _Measurement(adapter, run, batches, validation, tolerance, steps).looks()
        return
    yield _without_layers(adapter, run, batches, tolerance)


@still()
def _without_layers(adapter: ModelAdapter, run: str, batches: Sequence[Any], tolerance: float) -> Checked:
    """A model without layers to record: its losses in both modes, and what rows lose that have no batch."""
    kept = [Kept(batch, 0, adapter.batches.size(batch) or 1) for batch in batches]
    nothing, segments = np.empty(0), Segments([])
    subject = Subject(
        segments, nothing, Moments(nothing, nothing), nothing.astype(bool), nothing.astype(np.int64), nothing
    )
    not_evaluated: dict[str, str] = {}
    evidence: Evidence | None = None
    unreached: tuple[str, ...] = ()
    try:
        runner = adapter.runner((), segments)
        evidence = Judgement(runner, subject, kept).evidence(0, Moment.CHECK, {})
        unreached = tuple(runner.unreached)
        if runner.loss_reason:
            not_evaluated["losses"] = runner.loss_reason
    except NotEvaluated as reason:
        not_evaluated["losses"] = str(reason)
    entropy = entropy_in_all(adapter.batches.targets, batches)
    losses, now = _losses(evidence, adapter.learning_rate() or math.nan, entropy), np.array([time.time()])
    return Checked(
        History(
            run=run,
            manifest=Manifest(
                layers=(),
                batch_size=max(k.size for k in kept),
                tolerance=tolerance,
                versions=_versions(adapter),
                notes=tuple(adapter.not_read()),
                not_evaluated=not_evaluated,
                framework=adapter.framework,
                called=adapter.called,
                untracked=tuple(adapter.untracked()),
                unreached=unreached,
            ),
            steps=np.empty(0, np.int64),
            wall_times=nothing,
            layers=np.empty((0, 0, len(LAYER_ROWS)), np.float32),
            loss_steps=np.zeros(len(losses), np.int64),
            loss_wall_times=np.repeat(now, len(losses)),
            losses=losses,
            evidence=() if evidence is None else (evidence,),
        )
    )


def _versions(adapter: ModelAdapter) -> dict[str, str]:
    return {**adapter.versions(), **own_version()}


class _Measurement:
    def __init__(
        self,
        adapter: ModelAdapter,
        run: str,
        batches: Sequence[Any],
        validation: Sequence[Any],
        tolerance: float,
        steps: int,
    ):
        self._adapter, self._run, self._tolerance, self._steps = adapter, run, tolerance, steps
        self._size = adapter.batches.size
        self._kept = [Kept(batch, 0, self._size(batch) or 1) for batch in batches]
        self._validation = [(batch, self._size(batch) or 1) for batch in validation]
        self._layers = adapter.layers()
        self._segments = Segments([t.channels for t in self._layers])
        self._recovery = WindowRecovery(self._layers, self._segments)
        self._watch = LayerWatch(self._layers, self._segments, lambda *_: None)
        self._snapshot = adapter.reader(self._layers).read()
        self._moving = self._recovery.moving(self._snapshot).double()
        self._trained = np.array([t.trainable for t in self._layers], bool)
        """Layers that normalize by the batch in training, [L]; as their weights are trained until a pass tells."""
        self._called = np.ones(len(self._layers), bool)
        """Layers that a pass calls, [L]; all until one tells."""
        self._not_evaluated: dict[str, str] = {}

    def looks(self) -> Iterator[Checked]:
        """The measurement as a record of one moment; see ``looks``."""
        try:
            made = self._watch.runner = self._adapter.runner(self._layers, self._segments)
            runner = Remembering(made, [k.batch for k in self._kept], self._moving, self._adapter.batches.bytes)
            few = self._kept[:: len(self._kept) // FIRST_LOOK or 1][:FIRST_LOOK]
            if len(self._kept) >= 2 * len(few):
                found = self._at(runner, few, may_suffice)
                if found is not None:
                    yield found
            found = self._at(runner, self._kept)
            assert found is not None
            yield found
        except NotEvaluated as reason:
            yield self._checked(ProbeState.empty(self._segments), self._nothing(str(reason)))

    @still()
    def _at(
        self, runner: Remembering, kept: Sequence[Kept], goes_on: Callable[[History], bool] = lambda _: True
    ) -> Checked | None:
        """The measurement on these batches.

        Args:
            runner: makes the passes.
            kept: the batches.
            goes_on: whether to make more than the essential passes, from what these show; else there is no measurement.
        """
        seen, sizes = self._batch_statistics(runner, kept), [k.size for k in kept]
        reference = BatchMoments(seen, sizes).mean()
        state = ProbeState.empty(self._segments)
        state.pool(reference)
        state.batches = len(kept)
        begun = time.perf_counter() - runner.tracing.seconds
        judgement, rows = self._judgement(runner, kept, reference)
        if not goes_on(self._checked(state, judgement.look(self._steps, Moment.CHECK, rows)).history):
            return None
        evidence = judgement.evidence(self._steps, Moment.CHECK, rows)
        if runner.loss_reason:
            self._not_evaluated["losses"] = runner.loss_reason
        state.between_within = evidence.layers.get("between_within", state.between_within)
        return self._checked(state, replace(evidence, seconds=time.perf_counter() - begun - runner.tracing.seconds))

    def _checked(self, state: ProbeState, evidence: Evidence) -> Checked:
        table = self._table(state, evidence.layers)
        losses = _losses(evidence, self._adapter.learning_rate() or math.nan, self._target_entropy)
        now = time.time()
        return Checked(
            History(
                run=self._run,
                manifest=self._manifest(),
                steps=np.array([self._steps], np.int64),
                wall_times=np.array([now]),
                layers=table[None],
                loss_steps=np.array([self._steps] * len(losses), np.int64),
                loss_wall_times=np.array([now] * len(losses)),
                losses=losses,
                evidence=(evidence,),
            ),
            self._channels(state),
        )

    # --- the passes ----------------------------------------------------------------------------------

    def _batch_statistics(self, runner: Remembering, kept: Sequence[Kept]) -> list[Moments]:
        """Statistics of the batches as training would take them, with dropout off; of all layers' own inputs."""
        # They tell which layers are called in training mode, and which normalize by the batch at inference.
        runner.training(kept[0].batch)
        runner.inference(kept[0].batch, self._moving)
        on_moving = ~self._segments.per_channel(runner.trained()).astype(bool)
        return [moments_of(runner.batch(k.batch, self._moving, on_moving)) for k in kept]

    def _judgement(
        self, runner: Remembering, kept: Sequence[Kept], seen: Moments
    ) -> tuple[Judgement, dict[str, Array]]:
        """What makes the passes, and the rows of ``metadata.EVIDENCE_ROWS`` that are known before."""
        calls = np.bincount(np.asarray(runner.order, np.int64), minlength=len(self._layers)).astype(np.float64)
        left, self._trained = self._start_left(seen, calls), runner.trained()
        self._called = (calls > 0) | (not calls.any())
        subject = Subject(
            segments=self._segments,
            epsilon=self._recovery.epsilon,
            moving=self._moving,
            trained=self._trained,
            states=self._states(),
            start_left=left,
            tolerance=self._tolerance,
        )
        by_batch = np.array([runner.at_inference.get(i, np.nan) for i in range(len(self._layers))], np.float64)
        rows = {"calls": calls, "start_left": left, "batch_at_inference": by_batch}
        return Judgement(runner, subject, kept, self._validation), rows

    def _nothing(self, reason: str) -> Evidence:
        """The evidence where no pass can be made."""
        self._not_evaluated["losses"] = reason
        sizes = np.array([k.size for k in self._kept], np.int64)
        nothing = np.zeros_like(sizes)
        return Evidence(self._steps, Moment.CHECK, nothing, sizes, nothing, not_evaluated={"losses": reason})

    def _start_left(self, seen: Moments, calls: Array) -> Array:
        """What is left of the start, as far as the steps that the optimizer has counted do not contradict it."""
        left = start_left(self._moving, seen, self._segments)
        if not self._steps:
            return left
        at_most = self._recovery.weights(self._steps * np.maximum(calls, 1), self._snapshot.counts)[0]
        return np.where(left > at_most + CONTRADICTED, np.nan, left)

    def _states(self) -> NDArray[np.int64]:
        """Position in ``metadata.State`` of what each layer does, as far as one moment tells, [L]."""
        initial = self._segments.count((self._moving.mean == 0) & (self._moving.variance == 1)) == self._segments.sizes
        states = []
        for i, tracked in enumerate(self._layers):
            # In PyTorch weights that are not trained freeze no statistics: the mode of the module does.
            if not self._called[i]:
                states.append(State.UNKNOWN)
            elif not self._trained[i]:
                states.append(State.INFERENCE_MODE if tracked.trainable else State.FROZEN)
            else:
                states.append(State.NEVER_UPDATED if initial[i] or tracked.momentum == 1.0 else State.UPDATING)
        return np.array([state.position for state in states], np.int64)

    # --- the record ----------------------------------------------------------------------------------

    def _table(self, state: ProbeState, evidence: Mapping[str, Array]) -> NDArray[np.float32]:
        # Windows in which nothing has happened yet.
        windows = Windows(self._snapshot, self._steps, self._recovery, self._segments)
        with np.errstate(all="ignore"):
            table = layer_table(
                windows, state, self._recovery, self._segments, self._watch.momentums, self._states().astype(np.float64)
            )
        table[:, LAYER_INDEX["updates"]] = np.nan
        for row in OF_THE_COURSE:
            table[:, LAYER_INDEX[row]] = np.nan
        for row in ("noise_mean", "noise_variance", "validation_distance_rms"):
            table[:, LAYER_INDEX[row]] = evidence.get(row, np.nan)
        return table

    def _channels(self, state: ProbeState) -> tuple[Channels, ...]:
        packed = np.stack([state.mean, state.variance, self._moving.mean, self._moving.variance]).astype(np.float32)
        steps = np.array([self._steps], np.int64)
        return tuple(Channels(steps, values[None]) for values in self._segments.split(packed))

    @cached_property
    def _target_entropy(self) -> float:
        return entropy_in_all(self._adapter.batches.targets, [k.batch for k in self._kept])

    def _manifest(self) -> Manifest:
        return Manifest(
            layers=tuple(self._watch.describe()),
            batch_size=max(k.size for k in self._kept),
            tolerance=self._tolerance,
            versions=_versions(self._adapter),
            not_evaluated=self._not_evaluated,
            framework=self._adapter.framework,
            notes=tuple(self._adapter.not_read()),
            called=self._adapter.called,
            untracked=tuple(self._adapter.untracked()),
            unreached=tuple(self._watch.runner.unreached),
        )


def _losses(evidence: Evidence | None, learning_rate: float, target_entropy: float) -> NDArray[np.float32]:
    """The means of the passes as the one probe of a record, [1, probes, kinds]; none where no pass was made."""
    if evidence is None or not evidence.passes:
        return np.empty((0, *record.empty_losses().shape), np.float32)
    batches = float(len(evidence.batch_sizes))
    rows = {
        "train": {
            **{name: evidence.mean(name) for name in ("training", "batch", "inference", "recalibrated")},
            "recalibrated_now": evidence.mean("recalibrated"),
            "short_updates": batches,
            "now_batches": batches,
            "batch_size": float(evidence.batch_sizes.max()),
            "learning_rate": learning_rate,
            "target_entropy": target_entropy,
        },
        "validation": {name: result.mean for name, result in evidence.validation.items()},
    }
    return record.loss_table(rows)[None]
