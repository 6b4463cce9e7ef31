"""One run's record, in one read of the data provider."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
from tensorboard.context import RequestContext
from tensorboard.data import provider
from tensorboard.errors import PublicError

from tb_bnlens import metadata
from tb_bnlens.history import Channels, Event, Evidence, History, Manifest
from tb_bnlens.reader.bounds import MOST_CHANNELS, MOST_MANIFESTS, with_steps
from tb_bnlens.reader.evidence import BadEvidence, parse_evidence
from tb_bnlens.reader.logdir import LogdirProvider
from tb_bnlens.reader.manifest import BadManifest, parse_manifest, unnamed_layers, with_events
from tb_bnlens.reader.runs import Run, find_run
from tb_bnlens.reader.series import NUMERIC, Table, before_fences, current, to_table, without_impossible

# The provider has sampled already, when it loaded; 0 would mean none rather than all.
ALL_POINTS = 1_000_000
# Tried in turn where a read fails: one tensor that cannot be decoded, or a reply over gRPC's limit of 256 MiB, fails
# the whole read.
FEWER_POINTS = (ALL_POINTS, 512, 128, 16, 1)


WHAT = {
    metadata.LAYERS_TAG: "layer records",
    metadata.LOSSES_TAG: "probes",
    metadata.EVIDENCE_TAG: "measurements on many batches",
}
CHANNEL_COUNTS = ("channels_nonfinite", "window_nonfinite", "channels_collapsed")


class Unreadable(RuntimeError):
    """The data provider returned nothing of a run's record."""


def read_run(
    data: provider.DataProvider,
    experiment_id: str,
    run: str | Run,
    *,
    ctx: RequestContext | None = None,
    cap: int | None = None,
) -> History:
    """Read everything that the analysis needs of a run. Per-channel snapshots are read by ``read_channels``.

    Args:
        data: where to read.
        experiment_id: TensorBoard's, or ``""`` elsewhere.
        run: the name that is shown, or the result of ``find_run``.
        ctx: TensorBoard's request context.
        cap: records that TensorBoard keeps of a tag (``--samples_per_plugin``), None or 0 if it keeps all.

    Returns:
        The record, with a sentence in ``problems`` for everything that could not be read.

    Raises:
        RunNotFound: no run of that name holds a record.
        Unreadable: the provider fails for every part of it.
    """
    ctx = ctx or RequestContext()
    found = run if isinstance(run, Run) else find_run(data, experiment_id, run, ctx=ctx)
    if found.format is not None and found.format > metadata.FORMAT:
        return _refused(found.name, found.format)
    points, problems = _read(data, experiment_id, ctx, found.run_id, metadata.PLUGIN_NAME, sorted(found.tags))
    if isinstance(data, LogdirProvider):
        problems += data.problems(found.run_id)

    manifests, manifest_problems = _manifests(points.get(metadata.MANIFEST_TAG, []))
    problems += manifest_problems
    newest = max((m.format for _, m in manifests), default=metadata.FORMAT)
    if newest > metadata.FORMAT:
        return _refused(found.name, newest)
    fences = [(point.wall_time, point.step) for point, _ in manifests]
    announced = len(manifests[-1][1].layers) if manifests else None

    raw = {}
    for tag, what in WHAT.items():
        raw[tag], far = with_steps(points.get(tag, []), what)
        problems += far
    valid = {tag: before_fences(series, fences) for tag, series in raw.items()}
    layers = to_table(valid[metadata.LAYERS_TAG], announced, len(metadata.LAYER_ROWS), "layer record")
    losses = to_table(valid[metadata.LOSSES_TAG], len(metadata.PROBES), len(metadata.LOSS_ROWS), "probe")
    losses = _probes(losses)
    manifest = _merged(manifests, layers, _went_back(fences, raw.values()))
    layers = without_impossible(layers, metadata.LAYER_ROWS, _limits(manifest))
    losses = without_impossible(losses, metadata.LOSS_ROWS, {})
    evidence, evidence_problems = _evidence(valid[metadata.EVIDENCE_TAG], announced)
    problems += (*layers.problems, *losses.problems, *evidence_problems)

    voided = sum(len(raw[tag]) - len(valid[tag]) for tag in raw)
    if manifests and len(layers.steps) and layers.values.shape[1] != announced:
        problems += ("The manifest is of another network than the records, so layer names are unknown.",)
    if voided:
        problems += (f"Recording went back to an earlier step; {voided} records from after that step were left out.",)
    if not manifests:
        problems += ("The manifest is missing, so layer names and planned steps are unknown.",)
    largest = max((len(series) for series in raw.values()), default=0)
    if cap and largest >= cap:
        problems += (
            f"TensorBoard keeps {cap} records per run and may have dropped others: curves have fewer points, and an "
            f"event between two records may be missing. Start it with --samples_per_plugin={metadata.PLUGIN_NAME}=0 "
            "to see all.",
        )
    return History(
        run=found.name,
        manifest=manifest,
        steps=layers.steps,
        wall_times=layers.wall_times,
        layers=layers.values,
        loss_steps=losses.steps,
        loss_wall_times=losses.wall_times,
        losses=losses.values,
        problems=tuple(dict.fromkeys(problems)),
        evidence=evidence,
    )


def read_channels(
    data: provider.DataProvider,
    experiment_id: str,
    run: str | Run,
    layer: int,
    *,
    ctx: RequestContext | None = None,
) -> Channels:
    """The per-channel snapshots of one layer, empty where none was written.

    Raises:
        RunNotFound: no run of that name holds a record.
        Unreadable: the provider fails.
    """
    ctx = ctx or RequestContext()
    found = run if isinstance(run, Run) else find_run(data, experiment_id, run, ctx=ctx)
    tag = metadata.channels_tag(layer)
    points, _ = _read(data, experiment_id, ctx, found.run_id, metadata.CHANNELS_PLUGIN_NAME, [tag])
    rows = len(metadata.CHANNEL_ROWS)
    tables = [
        (point, array)
        for point in with_steps(points.get(tag, []), "snapshots")[0]
        if (array := np.asarray(point.numpy)).ndim == 2
        and 0 < array.shape[1] <= MOST_CHANNELS
        and array.dtype.kind in NUMERIC
    ]
    width = tables[-1][1].shape[1] if tables else 0
    tables = [(point, array) for point, array in tables if array.shape[0] >= rows and array.shape[1] == width]
    keep = current([point.step for point, _ in tables])
    tables = [pair for pair, kept in zip(tables, keep, strict=True) if kept]
    values = np.empty((len(tables), rows, width), np.float32)
    with np.errstate(over="ignore"):
        for i, (_, array) in enumerate(tables):
            values[i] = array[:rows]
    return Channels(steps=np.array([point.step for point, _ in tables], np.int64), values=values)


def _read(
    data: provider.DataProvider,
    experiment_id: str,
    ctx: RequestContext,
    run_id: str,
    plugin_name: str,
    tags: Sequence[str],
) -> tuple[dict[str, list[Any]], tuple[str, ...]]:
    """Points by tag, in one read. If that fails, read each tag alone, with fewer points if necessary."""

    def read(chosen: Sequence[str], downsample: int) -> dict[str, list[Any]]:
        reply = data.read_tensors(
            ctx,
            experiment_id=experiment_id,
            plugin_name=plugin_name,
            downsample=downsample,
            run_tag_filter=provider.RunTagFilter(runs=[run_id], tags=chosen),
        )
        return {tag: list(series) for tag, series in reply.get(run_id, {}).items()}

    try:
        return read(tags, ALL_POINTS), ()
    except PublicError:
        raise
    except Exception as error:  # providers raise gRPC's, NumPy's and TensorBoard's own, and one tag must not cost all
        failure: Exception = error
    points: dict[str, list[Any]] = {}
    problems: tuple[str, ...] = ()
    for tag in tags:
        for downsample in FEWER_POINTS:
            try:
                points.update(read([tag], downsample))
            except Exception as error:
                failure = error
                continue
            if downsample != ALL_POINTS:
                problems += (
                    f"{tag} could not be read completely ({_brief(failure)}); "
                    f"{len(points.get(tag, []))} of its records are shown.",
                )
            break
        else:
            problems += (f"{tag} could not be read ({_brief(failure)}).",)
    if not points:
        raise Unreadable(f"TensorBoard's data provider failed for this run ({_brief(failure)})") from failure
    return points, problems


def _brief(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__


def _manifests(points: Sequence[Any]) -> tuple[list[tuple[Any, Manifest]], tuple[str, ...]]:
    """The last readable manifests in the order of writing."""
    manifests = []
    reason = ""
    problems: tuple[str, ...] = ()
    if len(points) > MOST_MANIFESTS:
        problems += (f"Of {len(points):,} manifests the last {MOST_MANIFESTS:,} were read.",)
        points = points[-MOST_MANIFESTS:]
    for point in points:
        array = np.asarray(point.numpy)
        try:
            if array.size != 1:
                raise BadManifest(f"it is a tensor of shape {array.shape}")
            manifest, flaws = parse_manifest(array.reshape(-1)[0])
            manifests.append((point, manifest))
            problems += flaws
        except BadManifest as error:
            reason = str(error)
    bad = len(points) - len(manifests)
    if not bad:
        return manifests, problems
    which = "The manifest" if bad == len(points) else f"{bad} of {len(points)} manifests"
    return manifests, (*problems, f"{which} could not be used: {reason}.")


def _evidence(points: Sequence[Any], layers: int | None) -> tuple[tuple[Evidence, ...], tuple[str, ...]]:
    """Readable measurements in the order of their steps."""
    found = []
    reason = ""
    for point in points:
        array = np.asarray(point.numpy)
        try:
            if array.size != 1:
                raise BadEvidence(f"it is a tensor of shape {array.shape}")
            found.append(parse_evidence(array.reshape(-1)[0], layers))
        except BadEvidence as error:
            reason = str(error)
    found.sort(key=lambda evidence: evidence.step)
    if bad := len(points) - len(found):
        return tuple(found), (f"{bad} of {len(points)} measurements on many batches could not be used: {reason}.",)
    return tuple(found), ()


def _went_back(fences: Sequence[tuple[float, int]], series: Iterable[Sequence[Any]]) -> int | None:
    """Step of the last manifest that invalidated records, or None."""
    valid = [point for points in series for point in points]
    went_back = None
    for fence in fences:
        count, valid = len(valid), before_fences(valid, [fence])
        went_back = fence[1] if len(valid) < count else went_back
    return went_back


def _merged(manifests: Sequence[tuple[Any, Manifest]], layers: Table, went_back: int | None) -> Manifest:
    """The last manifest, with the events of earlier ones that no restart invalidated."""
    count = layers.values.shape[1]
    if not manifests:
        return Manifest(layers=unnamed_layers(count, _momenta(layers)))
    _, manifest = manifests[-1]
    events: list[Event] = []
    horizons = list(accumulate((later.step for later, _ in reversed(manifests[1:])), min))
    for (_, earlier), horizon in zip(manifests, reversed(horizons), strict=False):
        events += (event for event in earlier.events if event.step <= horizon)
    told = any(
        event.kind == metadata.EventKind.RESTART and event.step == went_back for event in (*events, *manifest.events)
    )
    if went_back is not None and not told:
        events.append(Event(went_back, metadata.EventKind.RESTART, f"Recording went back to step {went_back}."))
    merged = with_events(manifest, events)
    if len(layers.steps) and count != len(manifest.layers):
        # Which of its layers the rows are of is not known, and a fix must not name another one.
        merged = replace(merged, layers=unnamed_layers(count, _momenta(layers)))
    return merged


def _momenta(layers: Table) -> list[float]:
    return layers.values[-1, :, metadata.LAYER_INDEX["momentum"]].tolist() if len(layers.steps) else []


def _limits(manifest: Manifest) -> dict[str, Any]:
    """Row -> the greatest value that agrees with the channels of each layer, [L]."""
    channels = np.array([layer.channels or np.inf for layer in manifest.layers], np.float64)
    return {"worst_channel": channels - 1, **dict.fromkeys(CHANNEL_COUNTS, channels)}


def _probes(losses: Table) -> Table:
    """``losses`` is [P, D, M] of exactly the known probes: more are ignored, fewer are filled with NaN."""
    known = len(metadata.PROBES)
    given = losses.values.shape[1]
    if given == known:
        return losses
    values = np.full((len(losses.steps), known, losses.values.shape[2]), np.nan, np.float32)
    values[:, : min(known, given)] = losses.values[:, :known]
    return replace(losses, values=values)


def _refused(run: str, found: int) -> History:
    return History(
        run=run,
        manifest=Manifest(layers=()),
        steps=np.zeros(0, np.int64),
        wall_times=np.zeros(0, np.float64),
        layers=np.zeros((0, 0, len(metadata.LAYER_ROWS)), np.float32),
        loss_steps=np.zeros(0, np.int64),
        loss_wall_times=np.zeros(0, np.float64),
        losses=np.zeros((0, len(metadata.PROBES), len(metadata.LOSS_ROWS)), np.float32),
        problems=(
            f"This run is written in format {found}, newer than the format {metadata.FORMAT} that this BN Lens reads; "
            "update it where TensorBoard runs: pip install -U tensorboard-plugin-bnlens.",
        ),
    )
