"""The record as it is written: one writer, the manifest's running contents, and when it is due again."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tb_bnlens import summary
from tb_bnlens.capture.guard import NotRecorded
from tb_bnlens.capture.reasons import cause_of
from tb_bnlens.history import Event, Evidence, Layer, Manifest
from tb_bnlens.metadata import RUN_SUFFIX

FLUSH_MILLIS = 5_000
"""TensorFlow's writer flushes every two minutes by default, too long for a live tab."""
CHANNEL_SPACING = 1.25
"""Per-channel snapshots are the heavy part of a record: each comes at least this factor of steps after the last."""
CHANNEL_BYTES = 4 * 2**20
"""What the snapshots of a million steps hold, except that there are always four: TensorBoard keeps them in memory."""
FEWEST_CHANNELS = 4
LONG_RUN = 1_000_000


class RunLog:
    """Writes one run's record.

    Args:
        log_dir: TensorBoard run directory; the record goes to ``<log_dir>/bn_lens``.
        tolerance: for the manifest.
        ignore: for the manifest.
    """

    def __init__(self, log_dir: str, tolerance: float, ignore: Mapping[str, Sequence[str]] | None):
        self.move(log_dir)
        self._tolerance = tolerance
        self._ignore = {rule: tuple(patterns) for rule, patterns in (ignore or {}).items()}
        self._writer: Any = None
        self._notes: list[str] = []
        self._not_evaluated: dict[str, str] = {}
        self._events: list[Event] = []
        self._next_channels = 1
        self.planned_steps: int | None = None
        self.batch_size: int | None = None
        self.manifest_due = True
        self.ended = ""
        self.ended_step: int | None = None
        self.source = ""

    def move(self, log_dir: str) -> None:
        """Write to another run directory; called before ``open``."""
        self.log_dir = str(log_dir).rstrip("/")
        self._directory = f"{self.log_dir}/{RUN_SUFFIX}"

    def open(self) -> bool:
        """Create the writer. Returns whether the directory held a record already.

        Raises:
            NotRecorded: the directory cannot be written.
        """
        try:
            held = tf.io.gfile.exists(self._directory) and bool(tf.io.gfile.listdir(self._directory))
            self._writer = tf.summary.create_file_writer(self._directory, flush_millis=FLUSH_MILLIS)
        except (OSError, tf.errors.OpError) as error:
            raise NotRecorded(
                f"it cannot write to {self._directory} ({cause_of(error)}); give BNLens a directory that can be written"
            ) from error
        return held

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()

    def event(self, step: int, kind: str, text: str, layers: Sequence[int] = (), amounts: Sequence[float] = ()) -> None:
        """Add an event; it is written with the next record."""
        self._events.append(Event(step, kind, text, tuple(int(i) for i in layers), tuple(amounts)))
        self.manifest_due = True

    def note(self, sentence: str) -> None:
        """Add a sentence that is shown with the run."""
        if sentence not in self._notes:
            self._notes.append(sentence)
            self.manifest_due = True

    def not_evaluated(self, what: str, reason: str) -> None:
        """Say why a loss or row is not measured in this run."""
        if what not in self._not_evaluated:
            self._not_evaluated[what] = reason
            self.manifest_due = True

    def write_manifest(self, layers: Sequence[Layer], replicas: int, step: int) -> None:
        """Write the manifest as it stands."""
        self.manifest_due = False
        value = Manifest(
            layers=tuple(layers),
            planned_steps=self.planned_steps,
            batch_size=self.batch_size,
            replicas=replicas,
            tolerance=self._tolerance,
            versions=versions(),
            ignore=self._ignore,
            notes=tuple(self._notes),
            not_evaluated=dict(self._not_evaluated),
            events=tuple(self._events),
            ended=self.ended,
            ended_step=self.ended_step,
            source=self.source,
        )
        with self._writer.as_default():
            summary.manifest(value, step)

    def write_layers(self, table: NDArray[np.float32], step: int) -> None:
        """Write one packed record of all layers."""
        with self._writer.as_default():
            summary.layers(table, step)

    def write_losses(self, values: Mapping[str, Mapping[str, float]], step: int) -> None:
        """Write one probe."""
        with self._writer.as_default():
            summary.losses(summary.loss_table(values), step)

    def write_evidence(self, evidence: Evidence, step: int) -> None:
        """Write one measurement on many batches."""
        with self._writer.as_default():
            summary.evidence(evidence, step)

    def want_channels(self) -> None:
        """Have the next record come with a per-channel snapshot."""
        self._next_channels = 0

    def channels_due(self, step: int) -> bool:
        """Whether a per-channel snapshot is wanted with this record."""
        return step >= self._next_channels

    def write_channels(self, per_layer: Sequence[NDArray[np.floating[Any]]], step: int) -> None:
        """Write the per-channel snapshots of all layers, [4, C] each."""
        wanted = max(FEWEST_CHANNELS, CHANNEL_BYTES / max(1, sum(4 * values.size for values in per_layer)))
        self._next_channels = max(step + 1, math.ceil(step * max(CHANNEL_SPACING, LONG_RUN ** (1 / wanted))))
        with self._writer.as_default():
            for index, values in enumerate(per_layer):
                summary.channels(index, values, step)


def versions() -> dict[str, str]:
    """Versions for the manifest, package -> version."""
    return {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "tensorboard-plugin-bnlens")}
