"""A data provider over a directory, for the command line.

TensorBoard's own multiplexer would import TensorFlow wherever it is installed (seconds, and half a gigabyte), keep
every other plugin's data in memory, and pass over a damaged file in silence. This one reads the lens' records only,
a run at a time, and says what it could not read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError
from tensorboard.compat.proto import event_pb2
from tensorboard.context import RequestContext
from tensorboard.data import provider

from tb_bnlens import metadata
from tb_bnlens.reader.places import Place, place
from tb_bnlens.reader.records import RecordFileError, decoded, records

OUR_BYTES = metadata.PLUGIN_NAME.encode()
"""Part of all our plugin names and tags, so an event without it needs no parsing."""


@dataclass
class _Series:
    """What a listing says about one tag."""

    plugin_name: str
    plugin_content: bytes
    max_step: int
    max_wall_time: float


@dataclass
class _Index:
    series: dict[str, _Series] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Value:
    tag: str
    step: int
    wall_time: float
    tensor: Any


class LogdirProvider(provider.DataProvider):  # type: ignore[misc]
    """Every record of the lens under a directory, none dropped.

    Runs are named as TensorBoard names them, by directory relative to the logdir. The files are read again for
    each request, so that memory holds one run at a time; what a file says is a run's listing, is kept.
    """

    def __init__(self, logdir: str, where: Place) -> None:
        self._logdir, self._place = logdir, where
        self._files = where.event_files()
        self._indexes: dict[str, _Index] = {}

    def problems(self, run_id: str) -> tuple[str, ...]:
        """Sentences on files of a run that could not be read to their end."""
        return tuple(self._index(run_id).problems)

    def unlisted(self) -> dict[str, tuple[str, ...]]:
        """Runs of the lens from which nothing could be read, with the reasons."""
        ours = (run for run in self._files if os.path.basename(run) == metadata.RUN_SUFFIX)
        return {run: self.problems(run) for run in ours if not self._index(run).series and self.problems(run)}

    def experiment_metadata(self, ctx: RequestContext | None = None, *, experiment_id: str) -> Any:
        """Where the data lies."""
        return provider.ExperimentMetadata(data_location=self._logdir)

    def list_plugins(self, ctx: RequestContext | None = None, *, experiment_id: str) -> list[str]:
        """Names of the lens' plugins with data."""
        return sorted({s.plugin_name for run in self._files for s in self._index(run).series.values()})

    def list_runs(self, ctx: RequestContext | None = None, *, experiment_id: str) -> list[Any]:
        """All directories with event files."""
        return [provider.Run(run_id=run, run_name=run, start_time=None) for run in self._files]

    def list_tensors(
        self,
        ctx: RequestContext | None = None,
        *,
        experiment_id: str,
        plugin_name: str,
        run_tag_filter: Any = None,
    ) -> dict[str, dict[str, Any]]:
        """Tags of a plugin by run."""
        listing: dict[str, dict[str, Any]] = {}
        for run in self._chosen(run_tag_filter):
            for tag, series in self._index(run).series.items():
                if series.plugin_name == plugin_name and _passes(run_tag_filter, tag):
                    listing.setdefault(run, {})[tag] = provider.TensorTimeSeries(
                        max_step=series.max_step,
                        max_wall_time=series.max_wall_time,
                        plugin_content=series.plugin_content,
                        description="",
                        display_name="",
                    )
        return listing

    def read_tensors(
        self,
        ctx: RequestContext | None = None,
        *,
        experiment_id: str,
        plugin_name: str,
        downsample: int | None = None,
        run_tag_filter: Any = None,
    ) -> dict[str, dict[str, list[Any]]]:
        """All records of a plugin's tags by run, in the order in which they were written; never downsampled."""
        data: dict[str, dict[str, list[Any]]] = {}
        for run in self._chosen(run_tag_filter):
            index = self._index(run)
            wanted = {
                tag
                for tag, series in index.series.items()
                if series.plugin_name == plugin_name and _passes(run_tag_filter, tag)
            }
            if not wanted:
                continue
            undecodable = 0
            series_data = data.setdefault(run, {tag: [] for tag in sorted(wanted)})
            for value in self._values(run, _Index()):
                if value.tag not in wanted:
                    continue
                try:
                    array = decoded(value.tensor)
                except Exception:  # a foreign tensor can fail in any way, and only it is lost
                    undecodable += 1
                    continue
                series_data[value.tag].append(
                    provider.TensorDatum(step=value.step, wall_time=value.wall_time, numpy=array)
                )
            if undecodable:
                sentence = f"{undecodable} records hold tensors that cannot be decoded; they were left out."
                if sentence not in index.problems:
                    index.problems.append(sentence)
        return data

    def list_scalars(self, ctx: RequestContext | None = None, **unused: object) -> dict[str, Any]:
        """Return nothing: the lens writes its scalars for TensorBoard's Time Series only."""
        return {}

    def read_scalars(self, ctx: RequestContext | None = None, **unused: object) -> dict[str, Any]:
        """Nothing, as in ``list_scalars``."""
        return {}

    def read_last_scalars(self, ctx: RequestContext | None = None, **unused: object) -> dict[str, Any]:
        """Nothing, as in ``list_scalars``."""
        return {}

    def _chosen(self, run_tag_filter: Any) -> Iterator[str]:
        runs = getattr(run_tag_filter, "runs", None)
        return (run for run in self._files if runs is None or run in runs)

    def _index(self, run: str) -> _Index:
        if run not in self._indexes:
            index = _Index()
            for value in self._values(run, index):
                series = index.series[value.tag]
                series.max_step = max(series.max_step, value.step)
                series.max_wall_time = max(series.max_wall_time, value.wall_time)
            self._indexes[run] = index
        return self._indexes[run]

    def _values(self, run: str, index: _Index) -> Iterator[_Value]:
        """Our tensors of a run in file order; fills ``index.series`` (by tag) and ``index.problems`` on the way."""
        unparsable = 0
        for path in self._files.get(run, ()):
            name = os.path.basename(path)
            try:
                with self._place.open(path) as (file, size):
                    for record in records(file, size):
                        if OUR_BYTES not in record:
                            continue
                        try:
                            event = event_pb2.Event.FromString(record)
                        except DecodeError:
                            unparsable += 1
                            continue
                        for value in event.summary.value:
                            plugin = value.metadata.plugin_data
                            # Writers may leave the metadata out of all events of a tag but the first.
                            if value.tag not in index.series:
                                if plugin.plugin_name not in (metadata.PLUGIN_NAME, metadata.CHANNELS_PLUGIN_NAME):
                                    continue
                                index.series[value.tag] = _Series(
                                    plugin.plugin_name, plugin.content, event.step, event.wall_time
                                )
                            if value.HasField("tensor"):
                                yield _Value(value.tag, event.step, event.wall_time, value.tensor)
            except RecordFileError as error:
                index.problems.append(f"{name} {error}")
            except OSError as error:
                index.problems.append(f"{name} could not be read ({error.strerror or error}).")
        if unparsable:
            index.problems.append(f"{unparsable} damaged records were left out.")


def open_logdir(logdir: str | os.PathLike[str]) -> LogdirProvider:
    """A provider over all event files under a directory, for ``list_runs`` and ``read_run``.

    Args:
        logdir: directory to search, at any depth; ``~`` is expanded. Or a URL: see ``reader.places``.

    Raises:
        FileNotFoundError: there is no such directory.
        OSError: nothing here opens such a URL.
    """
    where = place(logdir)
    return LogdirProvider(os.path.expanduser(os.fspath(logdir)), where)


def _passes(run_tag_filter: Any, tag: str) -> bool:
    tags = getattr(run_tag_filter, "tags", None)
    return tags is None or tag in tags
