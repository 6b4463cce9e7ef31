"""One run's record, in one read of the data provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tensorboard.context import RequestContext
from tensorboard.data import provider

from tb_bnlens import metadata
from tb_bnlens.history import Evidence, History, Manifest
from tb_bnlens.reader.bounds import with_steps
from tb_bnlens.reader.evidence import parse_evidence
from tb_bnlens.reader.json_record import parsed
from tb_bnlens.reader.logdir import LogdirProvider
from tb_bnlens.reader.manifests import merged, parse_manifests, went_back
from tb_bnlens.reader.points import read_points
from tb_bnlens.reader.runs import Run, find_run
from tb_bnlens.reader.series import Table, before_fences, to_table, without_impossible

WHAT = {
    metadata.LAYERS_TAG: "layer records",
    metadata.LOSSES_TAG: "probes",
    metadata.EVIDENCE_TAG: "measurements on many batches",
}
CHANNEL_COUNTS = ("channels_nonfinite", "window_nonfinite", "channels_collapsed")


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
    points, problems = read_points(data, experiment_id, ctx, found.run_id, metadata.PLUGIN_NAME, sorted(found.tags))
    if isinstance(data, LogdirProvider):
        problems += data.problems(found.run_id)

    manifests, flaws = parse_manifests(points.get(metadata.MANIFEST_TAG, []))
    problems += flaws
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
    manifest = merged(manifests, layers, went_back(fences, raw.values()))
    layers = without_impossible(layers, metadata.LAYER_ROWS, _limits(manifest))
    losses = without_impossible(losses, metadata.LOSS_ROWS, {})
    evidence, unusable = _evidence(valid[metadata.EVIDENCE_TAG], announced)
    problems += (*layers.problems, *losses.problems, *unusable)
    problems += (*_manifest_problems(layers, announced), *_left_out(raw, valid), *_dropped(raw, cap))
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


def _evidence(points: Sequence[Any], layers: int | None) -> tuple[tuple[Evidence, ...], tuple[str, ...]]:
    """Readable measurements in the order of their steps."""
    found, reason = parsed(points, lambda raw: parse_evidence(raw, layers))
    evidence = tuple(sorted((evidence for _, evidence in found), key=lambda evidence: evidence.step))
    if bad := len(points) - len(found):
        return evidence, (f"{bad} of {len(points)} measurements on many batches could not be used: {reason}.",)
    return evidence, ()


def _manifest_problems(layers: Table, announced: int | None) -> tuple[str, ...]:
    if announced is None:
        return ("The manifest is missing, so layer names and planned steps are unknown.",)
    if len(layers.steps) and layers.values.shape[1] != announced:
        return ("The manifest is of another network than the records, so layer names are unknown.",)
    return ()


def _left_out(raw: Mapping[str, Sequence[Any]], valid: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    count = sum(len(raw[tag]) - len(valid[tag]) for tag in raw)
    if not count:
        return ()
    return (f"Recording went back to an earlier step; {count} records from after that step were left out.",)


def _dropped(raw: Mapping[str, Sequence[Any]], cap: int | None) -> tuple[str, ...]:
    if not cap or max(map(len, raw.values()), default=0) < cap:
        return ()
    return (
        f"TensorBoard keeps {cap} records per run and may have dropped others: curves have fewer points, and an "
        f"event between two records may be missing. Start it with --samples_per_plugin={metadata.PLUGIN_NAME}=0 "
        "to see all.",
    )


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
