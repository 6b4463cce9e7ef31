"""What a record claims is bounded where it is read, and told. Hostile sizes, steps, times, names and contradictions."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.compat.proto import event_pb2

from tb_bnlens import metadata
from tb_bnlens.history import History
from tb_bnlens.plugin.estimates import DERIVED
from tb_bnlens.reader import bounds as limits
from tb_bnlens.reader import list_runs, open_logdir, read_channels, read_run, series
from tb_bnlens.reader.evidence import parse_evidence
from tb_bnlens.reader.json_record import BadRecord
from tb_bnlens.reader.manifest import parse_manifest
from tb_bnlens.reader.series import before_fences, range_of
from tb_bnlens.report import run_report
from tests.fixtures.event_files import EventFile, layer_table
from tests.fixtures.runs import extend_run, manifest, write_run


def record(tmp_path: Path) -> EventFile:
    return EventFile(tmp_path / "exp" / metadata.RUN_SUFFIX)


def read(tmp_path: Path) -> History:
    history = read_run(open_logdir(tmp_path), "", "exp")
    json.dumps(run_report(history), allow_nan=False)
    return history


def said(history: History, *words: str) -> bool:
    return any(all(word in problem for word in words) for problem in history.problems)


def test_two_records_at_the_ends_of_what_64_bits_hold(tmp_path: Path) -> None:
    """The difference of their steps overflowed, and ended the report of all runs."""
    file = write_run(tmp_path / "exp")
    for step in (-(2**62), 2**62):
        file.layers(layer_table(3, state=1, updates=5, momentum=0.99, error_p95=1.0), step)
    history = read(tmp_path)
    assert history.last_step == 20 and said(history, "2 layer records were left out", "steps")
    (run,) = list_runs(open_logdir(tmp_path))
    assert run.last_step == 20, "in the picker too"


@pytest.mark.parametrize("wall_time", [1e18, -1e6, float("nan"), float("inf")])
def test_wall_times_of_no_calendar(tmp_path: Path, wall_time: float) -> None:
    file = write_run(tmp_path / "exp", steps=3)
    clock, file.clock = file.clock, wall_time
    file.layers(layer_table(3), 4)
    file.manifest(manifest(), 2)  # a fence at such a time would invalidate the records after step 2
    file.clock = clock
    file.layers(layer_table(3), 5)
    history = read(tmp_path)
    assert history.steps.tolist() == [1, 2, 3, 4, 5] and said(history, "impossible wall time")
    assert np.all(np.diff(history.wall_times) >= 0) and history.last_record == clock + 1


def test_a_record_without_any_wall_time(tmp_path: Path) -> None:
    file = record(tmp_path)
    file.clock = -1e9
    file.manifest(manifest(), 0)
    file.layers(layer_table(3), 1)
    assert read(tmp_path).last_record is None


def with_body(tmp_path: Path, **changes: Any) -> History:
    file = record(tmp_path)
    file.manifest({**asdict(manifest()), **changes}, 0)
    extend_run(file)
    return read(tmp_path)


BEYOND: dict[str, Any] = {
    "planned_steps": -7,
    "batch_size": 10**30,
    "replicas": 0,
    "tolerance": 1e300,
    "ended_step": 2.0**62,
    "format": float("inf"),
    "notes": {},
    "events": 3,
}


@pytest.mark.parametrize("name", BEYOND)
def test_a_field_out_of_bounds_takes_its_default_and_is_told(tmp_path: Path, name: str) -> None:
    history = with_body(tmp_path, **{name: BEYOND[name]})
    assert getattr(history.manifest, name) == getattr(parse_manifest('{"layers": []}')[0], name)
    assert said(history, "cannot be", name)


@pytest.mark.parametrize(
    ("name", "value"),
    [("channels", 10**18), ("momentum", 1.5), ("momentum", -1e300), ("epsilon", -1), ("calls", 10**9), ("axis", 10**9)],
)
def test_a_layer_s_field_out_of_bounds(tmp_path: Path, name: str, value: float) -> None:
    layers = [{**layer, name: value} for layer in asdict(manifest())["layers"]]
    history = with_body(tmp_path, layers=layers)
    assert getattr(history.manifest.layers[0], name) != value and said(history, "cannot be", name)


def test_texts_and_lists_are_cut_and_it_is_told() -> None:
    long, many = "x" * 20_000, limits.MOST_ENTRIES + 5
    events = [{"step": i, "kind": "note", "text": "x"} for i in range(many)]
    layers = [{"name": long, "kind": long}]
    body = {"layers": layers, "notes": [long, *["x"] * many], "events": events, "ignore": {long: [long]}}
    found, (sentence,) = parse_manifest(json.dumps(body))
    assert len(found.layers[0].name) == len(found.layers[0].kind) == limits.LONGEST_NAME
    assert len(found.notes) == len(found.events) == limits.MOST_ENTRIES
    assert found.events[-1].step == many - 1, "the last ones"
    ((rule, patterns),) = found.ignore.items()
    assert len(rule) == limits.LONGEST_NAME and len(patterns[0]) == limits.LONGEST_TEXT
    assert sentence == "The manifest holds more than is shown: events, ignore, kind, name, notes."


def test_more_layers_than_any_network(tmp_path: Path) -> None:
    file = record(tmp_path)
    count = limits.MOST_LAYERS + 5
    file.manifest({"layers": [{}] * count}, 0)
    file.layers(np.ones((count, 1)), 1)
    history = read_run(open_logdir(tmp_path), "", "exp")
    assert history.layers.shape[1] == len(history.manifest.layers) == limits.MOST_LAYERS
    assert said(history, "layers (10,005") and said(history, "10,005 rows; the first 10,000")


def test_records_that_do_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column takes few bytes on disk, and a row of all columns is made of it."""
    monkeypatch.setattr(limits, "LARGEST_TABLE", 3 * 3 * 4 * len(metadata.LAYER_ROWS))
    write_run(tmp_path / "exp", steps=20)
    history = read(tmp_path)
    assert len(history.steps) == 3 and history.steps[-1] == 20
    assert said(history, "3 of 20 layer records are shown")


def test_many_manifests_take_no_time(tmp_path: Path) -> None:
    file = record(tmp_path)
    body = json.dumps({"layers": [{"name": "bn", "channels": 4}], "events": [{"step": 1, "text": "x"}]})
    for i in range(limits.MOST_MANIFESTS + 100):
        file.manifest(body, i)
        file.layers(layer_table(1), i)
    began = time.process_time()
    history = read(tmp_path)
    assert said(history, "Of 2,100 manifests the last 2,000")
    assert len(history.steps) == 2100
    # It took minutes where each was held against every other.
    assert time.process_time() - began < 30


def test_fences_are_the_same_one_by_one() -> None:
    draw = np.random.default_rng(0)

    def event(wall_time: float, step: int) -> Any:
        return event_pb2.Event(wall_time=wall_time, step=step)

    for _ in range(200):
        points = [event(float(draw.integers(1, 30)), int(draw.integers(0, 9))) for _ in range(12)]
        fences = [(float(draw.integers(1, 30)), int(draw.integers(0, 9))) for _ in range(draw.integers(0, 5))]
        expected = [p for p in points if all(p.wall_time >= t or p.step <= step for t, step in fences)]
        assert before_fences(points, fences) == expected


def test_a_snapshot_wider_than_any_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tb_bnlens.reader.channels.MOST_CHANNELS", 7)
    write_run(tmp_path / "exp")
    data = open_logdir(tmp_path)
    assert read_channels(data, "", "exp", 0).values.shape == (1, 4, 4)
    assert read_channels(data, "", "exp", 1).values.shape == (0, 4, 0)


def test_channels_that_the_layer_does_not_have(tmp_path: Path) -> None:
    """The manifest says 4, 8 and 12 channels."""
    file = write_run(tmp_path / "exp")
    file.layers(layer_table(3, worst_channel=[3, 8, 1e9], channels_collapsed=[4, 9, 2], distance_rms=1.0), 21)
    history = read(tmp_path)
    assert history.last("worst_channel")[0] == 3 and np.isnan(history.last("worst_channel")[1:]).all()
    assert np.isnan(history.last("channels_collapsed")).tolist() == [False, True, False]
    assert said(history, "3 values were left out", "channels_collapsed, worst_channel")


@pytest.mark.parametrize("row", metadata.LAYER_ROWS)
def test_the_range_of_every_row(row: str) -> None:
    low, high = range_of(row, layers=True)
    signed = ("mean_error_p50", "mean_error_max", "variance_error_p50", "variance_error_max", "attribution")
    assert (low < 0) == (row in (*signed, "lag_cosine", "momentum_effective"))
    assert high >= 1


def test_impossible_values_are_shown_nowhere(tmp_path: Path) -> None:
    file = write_run(tmp_path / "exp")
    file.layers(layer_table(3, distance_rms=-1, shift=-np.inf, momentum=7, updates=21, error_p95=1.0), 21)
    report = run_report(read(tmp_path))
    assert all((layer["distance"] or 0) > 0 and 0 <= layer["momentum"] <= 1 for layer in report["layers"])
    assert " -inf" not in json.dumps(report) and any("distance_rms, momentum, shift" in n for n in report["notes"])


def test_impossible_values_of_a_measurement_on_many_batches() -> None:
    batches = {"steps": [1], "sizes": [8]}
    body = {
        "step": 1,
        "moment": "end",
        "batches": batches,
        "layers": {"distance_rms": [-1, 2], "mean_error_p50": [-1, 2]},
    }
    found = parse_evidence(json.dumps(body), 2)
    assert np.isnan(found.layers["distance_rms"]).tolist() == [True, False]
    assert found.layers["mean_error_p50"].tolist() == [-1, 2]
    with pytest.raises(BadRecord, match="counts"):
        parse_evidence(json.dumps({**body, "step": 2**62}), 2)
    with pytest.raises(BadRecord, match="numbers"):
        parse_evidence(json.dumps({**body, "seconds": 1e299}), 2)


def test_counts_that_decrease(tmp_path: Path) -> None:
    file = record(tmp_path)
    file.manifest(manifest(), 0)
    for step, updates in ((1, 40), (2, 3)):
        file.layers(layer_table(3, state=1, updates=updates, momentum=0.9, error_p95=1.0, distance_rms=1.0), step)
    history = read(tmp_path)
    assert len(history.steps) == 2
    for row in DERIVED:
        assert DERIVED[row](history).shape == (2, 3)


def test_the_ranges_name_rows_that_exist() -> None:
    known = {*metadata.LAYER_ROWS, *metadata.LOSS_ROWS}
    assert known >= series.COUNTS | series.SIZES | series.SHARES | series.COSINES
