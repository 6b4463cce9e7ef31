"""Which runs hold a record of the lens, and under which name they are shown."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from tensorboard.context import RequestContext
from tensorboard.data import provider

from tb_bnlens import metadata
from tb_bnlens.reader.bounds import is_step

ROOT = "."
"""TensorBoard's own name for event files that lie in the logdir itself."""

RECORD_TAGS = (metadata.MANIFEST_TAG, metadata.LAYERS_TAG, metadata.LOSSES_TAG, metadata.EVIDENCE_TAG)


class RunNotFound(LookupError):
    """No run of that name holds a record of the lens."""


@dataclass(frozen=True)
class Run:
    """A run that holds a record of the lens."""

    name: str
    """The name that is shown: the directory given to ``BNLens``, without the suffix ``bn_lens``."""
    run_id: str
    """TensorBoard's name of the run."""
    format: int | None
    """Format of the record as its summary metadata states it, None where that is not a number."""
    tags: Mapping[str, provider.TensorTimeSeries] = field(default_factory=dict)

    @property
    def last_step(self) -> int | None:
        """The greatest step of any record, None where it can be none."""
        steps = [
            int(s.max_step) for tag, s in self.tags.items() if tag != metadata.MANIFEST_TAG and is_step(s.max_step)
        ]
        return max(steps) if steps else None

    @property
    def fingerprint(self) -> tuple[object, ...]:
        """Changes whenever the data provider has something new for this run."""
        series = sorted((tag, s.max_step, s.max_wall_time, s.plugin_content) for tag, s in self.tags.items())
        return (self.run_id, *series)


def list_runs(
    data: provider.DataProvider, experiment_id: str = "", *, ctx: RequestContext | None = None
) -> tuple[Run, ...]:
    """The runs of an experiment that hold a record of the lens, by name.

    One listing of the provider and no read, whatever the number of runs.
    """
    ctx = ctx or RequestContext()
    listing = _list(data, experiment_id, ctx, None)
    names = {run_id: shown_name(run_id) for run_id in listing}
    if ROOT in names.values():
        own = _logdir_name(data, experiment_id, ctx)
        if own and own not in names.values():
            names = {run_id: own if name == ROOT else name for run_id, name in names.items()}
    counts: dict[str, int] = {}
    for name in names.values():
        counts[name] = counts.get(name, 0) + 1
    runs = [
        Run(name if counts[name] == 1 else run_id, run_id, _format(listing[run_id]), listing[run_id])
        for run_id, name in names.items()
    ]
    return tuple(sorted(runs, key=lambda run: run.name))


def find_run(data: provider.DataProvider, experiment_id: str, name: str, *, ctx: RequestContext | None = None) -> Run:
    """The run shown under a name.

    Raises:
        RunNotFound: there is no such run. The message names the runs that exist.
    """
    ctx = ctx or RequestContext()
    # A listing of one run is a reply of a few hundred bytes; TensorBoard's data server needs 40 ms more for a
    # longer one (measured: 0.4 against 44 ms), so all runs are listed only where this is not conclusive.
    candidates = _list(data, experiment_id, ctx, [f"{name}/{metadata.RUN_SUFFIX}", name])
    if len(candidates) == 1:
        ((run_id, tags),) = candidates.items()
        if shown_name(run_id) == name:
            return Run(name, run_id, _format(tags), tags)
    runs = list_runs(data, experiment_id, ctx=ctx)
    for run in runs:
        if run.name == name:
            return run
    for run in runs:
        if run.run_id == name:
            return run
    known = ", ".join(repr(run.name) for run in runs[:5]) + (", ..." if len(runs) > 5 else "")
    raise RunNotFound(
        f"there is no run {name!r} with a BN Lens record; "
        + (f"runs that have one: {known}" if runs else f"no run has one yet: {metadata.HOW_TO_RECORD}")
    )


def shown_name(run_id: str) -> str:
    """TensorBoard's run name without the directory that the recorder adds.

    Example:
        >>> shown_name("exp1/bn_lens"), shown_name("bn_lens"), shown_name("other")
        ('exp1', '.', 'other')
    """
    head, separator, tail = run_id.replace("\\", "/").rpartition("/")
    if tail != metadata.RUN_SUFFIX:
        return run_id
    return run_id[: len(head)] if separator else ROOT


def _list(
    data: provider.DataProvider, experiment_id: str, ctx: RequestContext, runs: list[str] | None
) -> dict[str, Mapping[str, provider.TensorTimeSeries]]:
    listing = data.list_tensors(
        ctx,
        experiment_id=experiment_id,
        plugin_name=metadata.PLUGIN_NAME,
        run_tag_filter=provider.RunTagFilter(runs=runs, tags=RECORD_TAGS),
    )
    return {run_id: tags for run_id, tags in listing.items() if tags}


def _logdir_name(data: provider.DataProvider, experiment_id: str, ctx: RequestContext) -> str:
    """Name of the logdir itself: whoever serves a single run's directory knows it by that name, not as ``.``."""
    location = data.experiment_metadata(ctx, experiment_id=experiment_id).data_location or ""
    path = os.path.expanduser(location)
    return os.path.basename(os.path.abspath(path)) if os.path.isdir(path) else ""


def _format(tags: Mapping[str, provider.TensorTimeSeries]) -> int | None:
    formats = []
    for series in tags.values():
        try:
            formats.append(int(bytes(series.plugin_content).decode("ascii")))
        except ValueError:
            continue
    return max(formats) if formats else None
