"""Recorder: snapshots, windows, probes, schedule and writer, put together for any training loop."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tb_bnlens import summary
from tb_bnlens.capture.guard import Guard
from tb_bnlens.capture.layers import TrackedLayer, find_layers
from tb_bnlens.capture.measure import Measurement, batch_size
from tb_bnlens.capture.probe import NotEvaluated, Probe
from tb_bnlens.capture.rows import layer_table
from tb_bnlens.capture.schedule import Schedule
from tb_bnlens.capture.segments import Segments
from tb_bnlens.capture.snapshots import Snapshot, SnapshotReader, WindowRecovery
from tb_bnlens.capture.windows import Windows
from tb_bnlens.history import Event, Manifest
from tb_bnlens.metadata import RUN_SUFFIX, STATES

FLUSH_MILLIS = 5_000
"""TensorFlow's writer flushes every two minutes by default, too long for a live tab."""
CHANNEL_SNAPSHOTS = 40
"""Per-channel snapshots of a run stay about this few: they are the heavy part of the record."""
ATTRIBUTION_SECONDS = 0.5
"""Attribution at the end may take this long even where the budget is spent."""
STATE = {name: i for i, name in enumerate(STATES)}


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
        if not isinstance(model, keras.Model):
            raise ValueError(f"model is a {type(model).__name__}; expected a keras.Model")
        self._model, self._loss, self._tolerance = model, loss, tolerance
        self._directory = str(log_dir).rstrip("/") + "/" + RUN_SUFFIX
        self._ignore = {rule: tuple(patterns) for rule, patterns in (ignore or {}).items()}
        self._data = {"train": probe_data, "validation": validation_data}
        self._batches: dict[str, Any] = {}
        self.planned_steps = planned_steps
        self._notes: list[str] = []
        self._not_evaluated: dict[str, str] = {}
        self._events: list[Event] = []
        self._manifest_due = True
        self._guard = Guard(on_error, self._note_fault)
        self._schedule = Schedule(overhead)
        self._writer: Any = None
        self._layers: tuple[TrackedLayer, ...] | None = None
        self._windows: Windows | None = None
        self._measurement: Measurement | None = None
        self._probe_passes: Probe | None = None
        self._step = 0
        self._last_record = self._last_probe = -1
        self._last_batch: Any = None
        self._batch_size: int | None = None
        self._next_channels = 1
        self._before: Snapshot | None = None
        self._table: dict[str, dict[str, float]] | None = None
        self._attributes: list[tuple[bool, float]] = []
        self._still: Any = np.zeros(0, bool)
        self._probed_batch: Any = None
        self._closed = False
        self._active = _is_chief()

    # --- the public loop -----------------------------------------------------------------------------

    def record(self, x: Any, y: Any = None, sample_weight: Any = None, *, step: int | None = None) -> None:
        """Take note of one training step that has just been made on this batch.

        Args:
            x: inputs of the batch.
            y: targets; without them losses need ``add_loss``.
            sample_weight: as in ``fit``.
            step: number of steps made so far; counted where it is not given.
        """
        if not self.wanted:
            return
        batch = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
        if not tf.executing_eagerly():
            raise RuntimeError("Recorder.record was called inside a tf.function; call it after the compiled step")
        self._last_batch = batch
        before = self._step
        self.begin()
        self.after_step(1 if step is None else max(int(step) - before, 1))
        level = self._schedule.probe_due(self._step)
        if level:
            self._probe(batch, level)
            self._write_losses()

    def close(self) -> None:
        """Make the last probe and record, and flush. Safe to call twice."""
        if self._closed or not self._active:
            return
        self._closed = True
        with self._guard("the end of the run"):
            if self._layers is not None:
                self._finish()
        if self._writer is not None:
            with self._guard("the record"):
                self._writer.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- called by BNLens ----------------------------------------------------------------------------

    @property
    def wanted(self) -> bool:
        """Whether there is anything left to record."""
        return self._active and not self._closed and self._guard.works("the record")

    @property
    def step(self) -> int:
        """Training steps made so far, those before the record began included."""
        return self._step

    @property
    def active_probe(self) -> bool:
        """Whether a training batch would be of use now."""
        return (
            self.wanted
            and self._layers is not None
            and self._data["train"] is None
            and self._guard.works("the paired losses")
        )

    def begin(self, step: int | None = None) -> None:
        """Start the record once the model is built; does nothing before that and after."""
        if self._layers is not None or not self.wanted or not self._model.built:
            return
        with self._guard("the record"):
            self._begin(self._step if step is None else step)

    def probe_due(self) -> str | None:
        """What the schedule asks for before the coming step."""
        return self._schedule.probe_due(self._step) if self.wanted and self._layers is not None else None

    def keep_batch(self, batch: Any) -> None:
        """Remember a training batch for the last probe."""
        self._last_batch = batch

    def before_step(self, batch: Any, level: str | None) -> None:
        """Probe the batch that the coming step is about to be trained on."""
        self.keep_batch(batch)
        size = batch_size(batch)
        if self._batch_size is None:
            self._batch_size = size
            self._manifest_due = True
        if level is None or (size or 0) < (self._batch_size or 0):
            return
        self._snapshot_now()
        self._probe(batch, level)
        if self._windows is not None:
            self._before = self._windows.last

    def after_step(self, steps: int, fit_loss: float | None = None, short_batch: bool = False) -> None:
        """Take note that the loop has made ``steps`` more steps."""
        if self._layers is None:
            self._step += steps
            return
        self._step += steps
        before, self._before = self._before, None
        if self._windows is not None and (
            before is not None or short_batch or self._schedule.snapshot_due(self._step) or self._manifest_due
        ):
            self._snapshot_now(short_batch)
            if before is not None and self._measurement is not None and steps == 1:
                with self._guard("the effective momentum"):
                    self._measurement.compare_update(before, self._windows.last)
                    self._use_effective_momentum()
            if self._schedule.record_due(self._step):
                self._write_record()
        if self._table is not None:
            if fit_loss is not None:
                self._table["train"]["fit_loss"] = fit_loss
            self._probe_updated()
            self._write_losses()

    @property
    def batch_size(self) -> int | None:
        """Samples in a usual training batch, None until one was seen."""
        return self._batch_size

    @property
    def loss_pending(self) -> bool:
        """Whether a probe waits for the step to be made."""
        return self._table is not None

    def plan(self, steps: int) -> None:
        """Say how many steps the loop will make in all."""
        self.planned_steps = steps
        self._manifest_due = True

    def note(self, sentence: str) -> None:
        """Add a sentence that the tab shows with the run."""
        self._notes.append(sentence)
        self._manifest_due = True

    def snapshot(self) -> None:
        """Read the moving statistics now, e.g. before a batch that is unlike the others."""
        if self.wanted and self._layers is not None:
            self._snapshot_now()

    def event(self, kind: str, text: str, layers: Sequence[int] = ()) -> None:
        """Add an event at the present step to the record."""
        self._events.append(Event(self._step, kind, text, tuple(int(i) for i in layers)))
        self._manifest_due = True

    def give_up_losses(self, reason: str) -> None:
        """Say that the paired losses cannot be measured in this run, and why."""
        self._guard.give_up("the paired losses", reason, warn=False)

    # --- inside --------------------------------------------------------------------------------------

    def _begin(self, step: int) -> None:
        layers = find_layers(self._model)
        self._step = step
        self._segments = Segments([t.channels for t in layers])
        self._recovery = WindowRecovery(layers, self._segments)
        self._reader = SnapshotReader(layers)
        restarted = tf.io.gfile.exists(self._directory) and bool(tf.io.gfile.listdir(self._directory))
        self._writer = tf.summary.create_file_writer(self._directory, flush_millis=FLUSH_MILLIS)
        if layers:
            self._windows = Windows(self._reader.read(), step, self._recovery, self._segments)
        self._layers = layers
        self._still = np.ones(len(layers), bool)
        self._attributes = self._read_attributes()
        self._schedule.start()
        self.event("restart" if restarted else "start", "recording goes on" if restarted else "recording begins")
        if not layers:
            self._notes.append("The model has no BatchNorm layer: only the paired losses are recorded.")
        with self._guard("the paired losses"):
            self._probe_passes = Probe(self._model, layers, self._segments, self._loss)
            self._measurement = Measurement(self._probe_passes, self._recovery, self._segments, self._tolerance)
        self._write_manifest()

    def _snapshot_now(self, short_batch: bool = False) -> None:
        windows = self._windows
        if windows is None or windows.last_step == self._step:
            return
        with self._guard("the record"), self._schedule.timed("snapshot"):
            now = self._reader.read()
            constant = (now.mean == windows.last.mean) & (now.spread == windows.last.spread)
            both_nan = np.isnan(now.mean) & np.isnan(windows.last.mean)
            still = self._segments.count(constant | both_nan) == self._segments.sizes
            updates = np.where(still, 0.0, (self._step - windows.last_step) * self._calls())
            windows.add(now, self._step, updates, short_batch)
            self._still = still

    def _calls(self) -> Any:
        calls = np.ones(len(self._segments))
        if self._probe_passes is not None:
            for index, count in zip(*np.unique(self._probe_passes.order, return_counts=True), strict=True):
                calls[int(index)] = count
        return calls

    def _states(self) -> Any:
        assert self._layers is not None and self._windows is not None
        probe = self._probe_passes
        never = self._windows.updates == 0
        states = np.full(len(self._layers), float(STATE["unknown"]))
        for i, tracked in enumerate(self._layers):
            if not self._still[i]:
                states[i] = STATE["updating"]
            elif not tracked.layer.trainable:
                states[i] = STATE["frozen"]
            elif probe is not None and i in probe.trains:
                called = STATE["never_updated"] if never[i] else STATE["unknown"]
                states[i] = called if probe.trains[i] else STATE["inference_mode"]
            elif tracked.layer.momentum == 1.0:
                states[i] = STATE["never_updated"]
        # Statistics that are not a number compare as constant: poisoned is not frozen.
        poisoned = self._segments.count(~np.isfinite(self._windows.last.mean)) > 0
        states[poisoned & ~never] = STATE["updating"]
        return states

    def _read_attributes(self) -> list[tuple[bool, float]]:
        return [(bool(t.layer.trainable), float(t.layer.momentum)) for t in self._layers or ()]

    def _watch_attributes(self) -> None:
        now = self._read_attributes()
        if now == self._attributes:
            return
        changes: dict[tuple[str, str], list[int]] = {}
        for i, (old, new) in enumerate(zip(self._attributes, now, strict=True)):
            if old[0] != new[0]:
                kind = "unfreeze" if new[0] else "freeze"
                changes.setdefault((kind, f"trainable set to {new[0]}"), []).append(i)
            if old[1] != new[1]:
                changes.setdefault(("momentum", f"momentum set from {old[1]:g} to {new[1]:g}"), []).append(i)
        for (kind, text), layers in changes.items():
            self.event(kind, text, layers)
        self._attributes = now

    def _use_effective_momentum(self) -> None:
        assert self._layers is not None and self._measurement is not None
        effective = self._measurement.state.momentum_effective
        beta = np.asarray([t.beta for t in self._layers])
        gain = np.asarray([t.gain for t in self._layers])
        # The estimate is good to a few parts in a thousand of 1 - momentum; within that the attribute is exact.
        wrong = np.isfinite(effective) & (np.abs((1 - effective) - gain) > 0.02 * np.maximum(gain, 1e-6))
        self._recovery.set_momenta(np.where(wrong, effective, beta), np.where(wrong, 1 - effective, gain))
        self._measurement.state.momentum_effective = np.where(
            wrong, effective, np.where(np.isnan(effective), np.nan, [t.layer.momentum for t in self._layers])
        )

    def _probe(self, batch: Any, level: str) -> None:
        measurement, probe = self._measurement, self._probe_passes
        if measurement is None or probe is None or not self._guard.works("the paired losses"):
            return
        windows, traced = self._windows, probe.tracing_seconds
        snapshot = windows.last if windows is not None else Snapshot(np.zeros(0), np.zeros(0))
        with self._guard("the paired losses"), self._schedule.timed("full" if level == "full" else "probe"):
            table: dict[str, dict[str, float]] = {"train": measurement.pair(batch, snapshot, windows)}
            if level == "full":
                if windows is not None:
                    table["train"] |= measurement.extras(batch, snapshot, windows)
                validation = self._fixed_batch("validation")
                if validation is not None:
                    table["validation"] = measurement.validation(validation, snapshot, windows)
            if probe.loss_reason and "losses" not in self._not_evaluated:
                self._not_evaluated["losses"] = probe.loss_reason
                self._manifest_due = True
            # Tracing is paid once and told apart from what recording costs all along.
            self._schedule.excluded += probe.tracing_seconds - traced
            self._probed_batch = batch
            self._table = table

    def _probe_updated(self) -> None:
        if self._table is None or self._probe_passes is None or not self._guard.works("the paired losses"):
            return
        with self._guard("the loss after the update"), self._schedule.timed("probe"):
            now = self._reader.read() if self._windows is not None else Snapshot(np.zeros(0), np.zeros(0))
            self._table["train"]["updated"] = self._probe_passes.inference(
                self._probed_batch, now.mean, self._recovery.moving_variance(now)
            )

    def _write_losses(self) -> None:
        table, self._table = self._table, None
        if table is None or self._writer is None:
            return
        self._probed_batch, self._last_probe = None, self._step
        rows = table["train"]
        rows["overhead"] = self._schedule.share
        rows["tracing_seconds"] = self._schedule.excluded
        with contextlib.suppress(Exception):
            rows["learning_rate"] = float(self._model.optimizer.learning_rate)
        with self._guard("the record"), self._writer.as_default():
            summary.losses(summary.loss_table(table), self._step)

    def _write_record(self) -> None:
        if self._windows is None or (self._measurement is None and not self._layers):
            return
        with self._guard("the record"), self._schedule.timed("record"):
            self._watch_attributes()
            state = self._measurement.state if self._measurement is not None else _no_probe(self._segments)
            table = layer_table(
                self._windows,
                state,
                self._recovery,
                self._segments,
                np.asarray([momentum for _, momentum in self._attributes]),
                self._states(),
                self._batch_size,
            )
            self._windows.forget_since()
            self._last_record = self._step
            with self._writer.as_default():
                summary.layers(table, self._step)
                if self._step >= self._next_channels:
                    self._next_channels = max(self._step + 1, math.ceil(self._step * 1.25))
                    self._write_channels()
            if self._manifest_due:
                self._write_manifest()

    def _write_channels(self) -> None:
        assert self._windows is not None and self._layers is not None
        from tb_bnlens.capture.rows import batch_statistics

        state = self._measurement.state if self._measurement is not None else _no_probe(self._segments)
        mu, v, _ = batch_statistics(self._windows, state)
        last = self._windows.last
        packed = np.stack([mu, v, last.mean, self._recovery.moving_variance(last)])
        for index, values in enumerate(self._segments.split(packed)):
            summary.channels(index, values, self._step)

    def _write_manifest(self) -> None:
        assert self._layers is not None
        self._manifest_due = False
        order: dict[int, int] = {}
        if self._probe_passes is not None:
            for position, index in enumerate(dict.fromkeys(self._probe_passes.order)):
                order[index] = position
        calls = self._calls()
        value = Manifest(
            layers=tuple(t.describe(i, order.get(i, -1), int(calls[i])) for i, t in enumerate(self._layers)),
            planned_steps=self.planned_steps,
            batch_size=self._batch_size,
            replicas=len(_local_replicas(self._windows)),
            tolerance=self._tolerance,
            versions=_versions(),
            ignore=self._ignore,
            notes=tuple(self._notes),
            not_evaluated=dict(self._not_evaluated),
            events=tuple(self._events),
        )
        with self._writer.as_default():
            summary.manifest(value, self._step)

    def _finish(self) -> None:
        if self._windows is not None:
            self._snapshot_now()
        batch = self._fixed_batch("train") if self._data["train"] is not None else self._last_batch
        if batch is not None and self._last_probe < self._step:
            self._probe(batch, "full")
            self._attribute(batch)
            self._write_losses()
        self._manifest_due = True
        if self._windows is not None:
            self._next_channels = 0
            self._write_record()
        if self._manifest_due:
            self._write_manifest()

    def _attribute(self, batch: Any) -> None:
        if self._table is None or self._windows is None or self._measurement is None:
            return
        losses = self._table["train"]
        gap = losses["inference"] - losses["batch"]
        # Without a gap there is nothing to share out among the layers.
        if not gap > self._tolerance * abs(losses["batch"]):
            return
        started = self._schedule.now()
        allowed = max(ATTRIBUTION_SECONDS, self._schedule.left_for_probes())
        with self._guard("the attribution"), self._schedule.timed("full"):
            self._measurement.attribution(batch, self._windows.last, lambda: allowed - (self._schedule.now() - started))

    def _fixed_batch(self, which: str) -> Any:
        if which not in self._batches and self._data[which] is not None:
            with self._guard(f"the {which} probe"):
                self._batches[which] = _first_batch(self._data[which], self._batch_size or 32)
        return self._batches.get(which)

    def _note_fault(self, part: str, sentence: str) -> None:
        self._notes.append(sentence)
        self._manifest_due = True
        if part == "the paired losses":
            self._not_evaluated["losses"] = self._guard.given_up[part]


def _no_probe(segments: Segments) -> Any:
    from tb_bnlens.capture.rows import ProbeState

    return ProbeState.empty(segments)


def _local_replicas(windows: Windows | None) -> range:
    replicas = None if windows is None else windows.last.replica_mean
    return range(1 if replicas is None else len(replicas))


def _first_batch(data: Any, size: int) -> Any:
    """The first batch of a dataset, or the first ``size`` samples of arrays."""
    if isinstance(data, tf.data.Dataset):
        return next(iter(data))
    if isinstance(data, keras.utils.PyDataset):
        return keras.tree.map_structure(tf.convert_to_tensor, data[0])
    if not isinstance(data, tuple):
        raise NotEvaluated(f"data of type {type(data).__name__}; expected (x, y), a tf.data.Dataset or a PyDataset")
    return keras.tree.map_structure(lambda a: tf.convert_to_tensor(a[:size]), data)


def _is_chief() -> bool:
    resolver = getattr(tf.distribute.get_strategy(), "cluster_resolver", None)
    if resolver is None or resolver.task_type is None:
        return True
    return bool(resolver.task_type == "chief" or (resolver.task_type == "worker" and resolver.task_id == 0))


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "tensorboard-plugin-bnlens")}
