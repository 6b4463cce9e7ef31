"""The record while it is written: one writer, the manifest's running contents, and when it is due again."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tb_bnlens import record
from tb_bnlens.capture.events import EventFile, holds_files
from tb_bnlens.capture.guard import NotRecorded
from tb_bnlens.capture.reasons import cause_of
from tb_bnlens.history import Event, Evidence, Layer, Manifest
from tb_bnlens.metadata import CHANNEL_ROWS, KERAS, RUN_SUFFIX, EventKind

CHANNEL_SPACING = 1.25
"""Per-channel snapshots are the heavy part of a record: each comes at least this factor of steps after the last, the
first one this many steps after the start. The end of a run has one always."""
CHANNEL_BYTES = 2**20
"""What the snapshots of a million steps hold, except that there are always three: TensorBoard keeps them in memory."""
FEWEST_CHANNELS = 3
LONG_RUN = 1_000_000


class RunLog:
    """Writes one run's record.

    Args:
        log_dir: TensorBoard run directory; the record goes to ``<log_dir>/bn_lens``.
        tolerance: for the manifest.
        ignore: for the manifest.
        versions: package -> version, for the manifest; those of the framework.
    """

    def __init__(
        self,
        log_dir: str,
        tolerance: float,
        ignore: Mapping[str, Sequence[str]] | None,
        versions: Callable[[], Mapping[str, str]] = dict,
    ):
        self.move(log_dir)
        self._tolerance = tolerance
        self._ignore = {rule: tuple(patterns) for rule, patterns in (ignore or {}).items()}
        self._versions = versions
        self._file: EventFile | None = None
        self._notes: list[str] = []
        self._not_evaluated: dict[str, str] = {}
        self._events: list[Event] = []
        self._channel_spacing = CHANNEL_SPACING
        self._next_channels = 1.0
        self.planned_steps: int | None = None
        self.batch_size: int | None = None
        self.manifest_due = True
        self.ended = ""
        self.ended_step: int | None = None
        self.source = ""
        self.framework = KERAS
        self.called = ""
        self.untracked: Sequence[str] = ()
        self.unreached: Sequence[str] = ()
        self.ranks: Sequence[tuple[float, float]] = ()

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
            held = holds_files(self._directory)
            self._file = EventFile(self._directory)
        except Exception as error:  # remote file systems raise errors of their own
            raise NotRecorded(
                f"it cannot write to {self._directory} ({cause_of(error)}); pass a log_dir that can be written"
            ) from error
        return held

    def close(self) -> None:
        """Flush and close."""
        if self._file is not None:
            self._file.close()

    def event(
        self, step: int, kind: EventKind, text: str, layers: Sequence[int] = (), amounts: Sequence[float] = ()
    ) -> None:
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

    def why_not(self, what: str) -> str:
        """Why a loss or row is not measured; empty where nothing was said."""
        return self._not_evaluated.get(what, "")

    def write_manifest(self, layers: Sequence[Layer], replicas: int, step: int) -> None:
        """Write the manifest as it stands."""
        self.manifest_due = False
        value = Manifest(
            layers=tuple(layers),
            planned_steps=self.planned_steps,
            batch_size=self.batch_size,
            replicas=replicas,
            tolerance=self._tolerance,
            versions={**self._versions(), **own_version()},
            ignore=self._ignore,
            notes=tuple(self._notes),
            not_evaluated=dict(self._not_evaluated),
            events=tuple(self._events),
            ended=self.ended,
            ended_step=self.ended_step,
            source=self.source,
            framework=self.framework,
            called=self.called,
            untracked=tuple(self.untracked),
            unreached=tuple(self.unreached),
            ranks=tuple(self.ranks),
        )
        self._write(step, record.manifest(value))

    def write_layers(self, table: NDArray[np.float32], step: int) -> None:
        """Write one packed record of all layers."""
        self._write(step, record.layers(table))

    def write_losses(self, values: Mapping[str, Mapping[str, float]], step: int) -> None:
        """Write one probe."""
        table, scalars = record.losses(record.loss_table(values))
        self._write(step, table, *scalars)

    def write_evidence(self, evidence: Evidence, step: int) -> None:
        """Write one measurement on many batches."""
        self._write(step, record.evidence(evidence))

    def meet_size(self, samples: int | None) -> None:
        """Take note of the samples in a usual training batch: the first ones that are given."""
        if self.batch_size is None and samples is not None:
            self.batch_size = samples
            self.manifest_due = True

    def fit_channels(self, channels: int) -> None:
        """Space snapshots of so many channels in all so that those of a million steps hold about CHANNEL_BYTES."""
        wanted = max(FEWEST_CHANNELS, CHANNEL_BYTES / (4 * len(CHANNEL_ROWS) * max(channels, 1)))
        self._channel_spacing = max(CHANNEL_SPACING, LONG_RUN ** (1 / wanted))
        self._next_channels = self._channel_spacing

    def want_channels(self) -> None:
        """Have the next record come with a per-channel snapshot."""
        self._next_channels = 0

    def channels_due(self, step: int) -> bool:
        """Whether a per-channel snapshot is wanted with this record."""
        return step >= self._next_channels

    def write_channels(self, per_layer: Sequence[NDArray[np.floating[Any]]], step: int) -> None:
        """Write the per-channel snapshots of all layers, [4, C] each."""
        self._next_channels = max(step + 1, step * self._channel_spacing)
        self._write(step, *(record.channels(index, values) for index, values in enumerate(per_layer)))

    def _write(self, step: int, *parts: record.Part | record.Scalar) -> None:
        assert self._file is not None, "open() comes first"
        try:
            if parts:
                self._file.write(step, *parts)
        except Exception as error:  # remote file systems raise errors of their own
            raise NotRecorded(f"it cannot write to {self._directory} any more ({cause_of(error)})") from error


def own_version() -> dict[str, str]:
    """The lens' own version, for the manifest."""
    return {"tensorboard-plugin-bnlens": importlib.metadata.version("tensorboard-plugin-bnlens")}
