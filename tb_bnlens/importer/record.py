"""Write a series of checkpoints as the record that the callback would have written."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens.capture.log import RunLog
from tb_bnlens.capture.rows import ProbeState, batch_statistics, layer_table
from tb_bnlens.capture.watch import LayerWatch
from tb_bnlens.history import Layer
from tb_bnlens.importer.constants import Constants
from tb_bnlens.importer.saved import Checkpoint
from tb_bnlens.importer.series import Series
from tb_bnlens.metadata import CHECKPOINTS, HOW_TO_RECORD, LAYER_INDEX, LAYER_ROWS, LOSS_KINDS, EventKind, State
from tb_bnlens.moments.layers import gain, kept
from tb_bnlens.moments.recovery import Snapshot, WindowRecovery
from tb_bnlens.moments.segments import Segments
from tb_bnlens.moments.windows import SHORT_UPDATES, Windows

Array = NDArray[np.floating[Any]]
Table = NDArray[np.float32]

TOLERANCE = 0.1
BLIND_MEMORIES = 3.0
"""Between checkpoints k updates apart, the share of a steady lag beta / (1-beta) that still shows is k p / (1-p) over
that lag, with p = beta^k: 16% at three times 1 / (1-beta) updates, and 3% at five times."""
PARTLY_BELOW = 0.7
"""If less than this share of a lag shows, a note says so."""
COMPARED = tuple(
    name for name in LAYER_ROWS if name.startswith(("distance_", "mean_error_", "variance_error_", "error_", "replay_"))
)
NO_LOSSES = (
    "This record was made from checkpoints. Losses need the training batches, which checkpoints do not hold. "
    f"To have them measured, {HOW_TO_RECORD}."
)


class Replay:
    """Process the checkpoints as the recorder processes training steps.

    Args:
        series: the checkpoints.
        constants: momentum and epsilon of each layer.
        log: where the record is written.
        from_scratch: the statistics were fresh (mean 0, deviation 1) at step 0.
    """

    def __init__(self, series: Series, constants: Constants, log: RunLog, *, from_scratch: bool):
        self._series, self._constants, self._log = series, constants, log
        first = series.checkpoints[0]
        self._layers = constants.tracked(first)
        self._segments = Segments([t.channels for t in self._layers])
        self._recovery = WindowRecovery(self._layers, self._segments)
        self._watch = LayerWatch(self._layers, self._segments, self._event)
        settings = [layer.settings for layer in first.layers]
        self._calls = np.asarray([1 if s is None else s.calls for s in settings], np.float64)
        self._kinds = [
            ("BatchNorm" if first.torch else "BatchNormalization") if s is None else s.kind for s in settings
        ]
        self._counts = np.zeros(len(first.layers)) if from_scratch else _counts(first)
        self._told = np.asarray([s is not None for s in settings])
        self._step = 0 if from_scratch else series.steps[0]
        size = int(self._segments.sizes.sum())
        log.fit_channels(size)
        start = Snapshot(np.zeros(size), np.ones(size)) if from_scratch else _snapshot(first)
        # Checkpoints are far apart: a note says how much of a lag shows in windows of their length.
        self._windows = Windows(start, self._step, self._recovery, self._segments, longest=math.inf)
        self._tables: list[tuple[int, Table]] = []
        self._spans: list[Array] = []

    def write(self) -> None:
        """Write the whole record."""
        self._log.source = CHECKPOINTS
        self._event(EventKind.START, "the first checkpoint" if self._step else "fresh statistics")
        self._take()
        for step, checkpoint in zip(self._series.steps, self._series.checkpoints, strict=True):
            if step > self._step:
                self._constants.follow(self._layers, checkpoint)
                self._advance(step, _snapshot(checkpoint), _counts(checkpoint))
        self._say_what_windows_hide()
        for kind in ("losses", *LOSS_KINDS, "replayed"):
            self._log.not_evaluated(kind, NO_LOSSES)
        for step, table in self._tables:
            self._log.write_layers(table, step)
        self._write_channels()
        self._log.write_manifest(self._describe(), 1, self._step)

    def _event(self, kind: EventKind, text: str, layers: object = ()) -> None:
        self._log.event(self._step, kind, text, layers)  # type: ignore[arg-type]

    def _advance(self, step: int, snapshot: Snapshot, counts: Array) -> None:
        updates = self._watch.updates(self._windows.last, snapshot, step - self._step) * self._calls
        counted = counts - self._counts
        # Statistics that did not move were not updated, whatever counted on.
        updates = np.where((updates > 0) & (counted > 0), counted, updates)
        self._step, self._counts = step, counts
        self._watch.look_for_changes()
        self._recovery.set_momentums([kept(t) for t in self._layers], [gain(t) for t in self._layers])
        self._windows.add(snapshot, step, updates)
        # A window without updates is not added, but the checkpoint is still of this step.
        self._windows.last, self._windows.step = snapshot, step
        self._spans.append(updates)
        self._take()

    def _take(self) -> None:
        probe = ProbeState.empty(self._segments)
        with np.errstate(all="ignore"):
            table = layer_table(
                self._windows, probe, self._recovery, self._segments, self._watch.momentums, self._states()
            )
        self._windows.forget_since()
        self._tables.append((self._step, table))
        if self._log.channels_due(self._step):
            self._write_channels()

    def _write_channels(self) -> None:
        windows = self._windows
        seen = batch_statistics(windows, ProbeState.empty(self._segments))
        packed = np.stack([seen.mean, seen.variance, windows.last.mean, self._recovery.moving_variance(windows.last)])
        self._log.write_channels(self._segments.split(packed), self._step)

    def _states(self) -> Array:
        """States of the layers, as far as they follow without calling the model."""
        states = self._watch.states(self._windows)
        last = self._windows.last
        if not self._tables:
            return np.full(len(states), float(State.UNKNOWN.position))
        constant = (states == State.UNKNOWN.position) & (self._windows.updates == 0)
        fresh = self._segments.count((last.mean == 0) & (last.spread == 1)) == self._segments.sizes
        # These are the values that a layer is built with: no update ever reached it, whatever mode it was called in.
        states[constant & fresh] = State.NEVER_UPDATED.position
        states[constant & ~fresh & self._told] = State.INFERENCE_MODE.position
        return states

    def _say_what_windows_hide(self) -> None:
        """Remove distances that are small only because of the spacing. Readers look back, so from all records."""
        if not self._spans:
            return
        span, beta = self._spans[-1], self._recovery.beta
        memory = 1 / np.maximum(1 - beta, 1e-9)
        error = self._tables[-1][1][:, LAYER_INDEX["error_p95"]]
        long = span >= SHORT_UPDATES
        blind = long & (span > BLIND_MEMORIES * memory) & ~(error > TOLERANCE)
        with np.errstate(all="ignore"):
            shown = span * beta**span / (1 - beta**span) / (beta * memory)
        partly = long & ~blind & (shown < PARTLY_BELOW)
        if partly.any():
            self._log.note(
                f"The checkpoints are {np.median(span[partly]):,.0f} updates apart. At this spacing a lag behind "
                f"drifting batch statistics shows only {100 * np.median(shown[partly]):.0f}% of its size in "
                f"{int(partly.sum())} of {len(partly)} layers. What remains of the initial statistics shows in full."
            )
        if not blind.any():
            return
        for _, table in self._tables:
            for name in COMPARED:
                table[blind, LAYER_INDEX[name]] = np.nan
        k, m = float(np.median(span[blind])), float(np.median(memory[blind]))
        reason = (
            f"The checkpoints are {k:,.0f} updates apart, and the momentum of {int(blind.sum())} of {len(blind)} "
            f"layers averages over about {m:,.0f}. Nothing of the initial statistics is left there, and a lag behind "
            "drifting batch statistics cannot be measured. Save checkpoints at shorter intervals, or use the callback."
        )
        self._log.not_evaluated("distance_rms", reason)
        self._log.note(reason)

    def _describe(self) -> list[Layer]:
        described = self._watch.describe()
        return [
            # Files that hold weights only sort layers by class name.
            replace(layer, kind=kind, calls=int(calls), order=i if told else -1)
            for i, (layer, kind, calls, told) in enumerate(
                zip(described, self._kinds, self._calls, self._told, strict=True)
            )
        ]


def _snapshot(checkpoint: Checkpoint) -> Snapshot:
    layers = checkpoint.layers
    return Snapshot(np.concatenate([x.mean for x in layers]), np.concatenate([x.spread for x in layers]))


def _counts(checkpoint: Checkpoint) -> Array:
    """Batches that each layer has counted itself, [L]; NaN where it does not."""
    return np.array([np.nan if x.updates is None else x.updates for x in checkpoint.layers], np.float64)
