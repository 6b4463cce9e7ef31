"""The reader against all three data providers: the same record, and a sentence for whatever is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tb_bnlens import metadata
from tb_bnlens.history import Event, History
from tb_bnlens.reader import RunNotFound, find_run, list_runs, open_logdir, read_channels, read_run
from tests.conftest import python_provider
from tests.fixtures.event_files import EventFile, layer_table, loss_table, string_proto
from tests.fixtures.runs import extend_run, manifest, write_run

Open = Callable[[Path], Any]


def only_run(provider: Open, logdir: Path) -> History:
    data = provider(logdir)
    (run,) = list_runs(data)
    return read_run(data, "", run)


def said(history: History, *words: str) -> bool:
    return any(all(word in problem for word in words) for problem in history.problems)


def record(tmp_path: Path, name: str = "exp") -> EventFile:
    return EventFile(tmp_path / name / metadata.RUN_SUFFIX)


def test_whole_record(provider: Open, tmp_path: Path) -> None:
    write_run(tmp_path / "exp")
    history = only_run(provider, tmp_path)
    assert history.run == "exp"
    assert history.problems == ()
    assert history.manifest == manifest(planned_steps=21)
    assert history.steps.tolist() == list(range(1, 21))
    assert history.layers.shape == (20, 3, len(metadata.LAYER_ROWS))
    assert history.loss_steps.tolist() == [5, 10, 15, 20]
    assert history.loss("batch").tolist() == pytest.approx([1.1] * 4)
    assert np.isnan(history.loss("batch", "validation")).all()
    assert history.last("updates").tolist() == [20, 20, 20]
    assert np.all(np.diff(history.wall_times) > 0)


def test_channels(provider: Open, tmp_path: Path) -> None:
    write_run(tmp_path / "exp")
    data = provider(tmp_path)
    channels = read_channels(data, "", "exp", 1)
    assert channels.steps.tolist() == [20]
    assert channels.values.shape == (1, 4, 8)
    assert channels.row("moving_variance").tolist() == [[float(i) for i in range(24, 32)]]
    assert read_channels(data, "", "exp", 77).values.shape == (0, 4, 0)


def test_runs_are_shown_by_the_directory_that_the_user_gave(provider: Open, tmp_path: Path) -> None:
    for name in ("b", "a/deep", "x y", "q\"<b>'ü"):
        write_run(tmp_path / name, steps=2)
    other = EventFile(tmp_path / "unrelated")
    other.tensor("accuracy", np.float32(1), 0, plugin="scalars")
    data = provider(tmp_path)
    assert [run.name for run in list_runs(data)] == sorted(["a/deep", "b", "q\"<b>'ü", "x y"])
    assert find_run(data, "", "a/deep").run_id == "a/deep/bn_lens"
    assert read_run(data, "", "q\"<b>'ü").last_step == 2


def test_a_logdir_that_is_one_run_is_shown_by_its_own_name(provider: Open, tmp_path: Path) -> None:
    write_run(tmp_path / "exp1", steps=2)
    data = provider(tmp_path / "exp1")
    assert [run.name for run in list_runs(data)] == ["exp1"]
    assert read_run(data, "", "exp1").last_step == 2


def test_two_runs_of_one_name_keep_their_directories(provider: Open, tmp_path: Path) -> None:
    write_run(tmp_path / "exp", steps=2)
    EventFile(tmp_path / "exp").layers(layer_table(1, momentum=0.9), 7)
    data = provider(tmp_path)
    assert [run.name for run in list_runs(data)] == ["exp", "exp/bn_lens"]
    assert read_run(data, "", "exp").last_step == 7
    assert read_run(data, "", "exp/bn_lens").last_step == 2


def test_an_unknown_run_is_named_with_those_that_exist(provider: Open, tmp_path: Path) -> None:
    write_run(tmp_path / "exp", steps=2)
    with pytest.raises(RunNotFound, match=r"'other'.*'exp'"):
        read_run(provider(tmp_path), "", "other")


def test_a_restart_that_goes_back_replaces_what_it_overwrites(provider: Open, tmp_path: Path) -> None:
    file = write_run(tmp_path / "exp", steps=30, every=10)
    again = EventFile(file.path.parent, name="events.out.tfevents.1700000900.host.2.0", clock=file.clock + 60)
    again.manifest(replace(manifest(), events=(Event(15, "restart", "resumed"),)), 15)
    extend_run(again, first_step=16, steps=8, every=20)
    history = only_run(provider, tmp_path)
    assert history.steps.tolist() == list(range(1, 24))
    # The abandoned branch's probe at 30 goes, and so does nothing of what came before step 15.
    assert history.loss_steps.tolist() == [10, 20]
    assert history.loss_wall_times[-1] > file.clock
    assert [e.step for e in history.manifest.events if e.kind == "restart"] == [15]


def test_an_abandoned_stretch_is_said(tmp_path: Path) -> None:
    file = write_run(tmp_path / "exp", steps=30, every=10)
    again = EventFile(file.path.parent, name="events.out.tfevents.1700000900.host.2.0", clock=file.clock + 60)
    again.manifest(manifest(), 15)
    extend_run(again, first_step=16, steps=3, every=20)
    history = read_run(open_logdir(tmp_path), "", "exp")
    assert said(history, "went back", "17 records from after that step")
    assert history.manifest.events == (Event(15, "restart", "Recording went back to step 15."),)


def test_a_second_training_in_the_same_directory_starts_over(provider: Open, tmp_path: Path) -> None:
    file = write_run(tmp_path / "exp", steps=30, layers=3)
    again = EventFile(file.path.parent, name="events.out.tfevents.1700000900.host.2.0", clock=file.clock + 60)
    again.manifest(manifest(layers=2), 0)
    extend_run(again, first_step=1, steps=4, layers=2, every=2)
    history = only_run(provider, tmp_path)
    assert len(history.manifest.layers) == 2
    assert history.steps.tolist() == [1, 2, 3, 4]
    assert history.loss_steps.tolist() == [2, 4]


def test_events_of_all_manifests_are_kept_once(provider: Open, tmp_path: Path) -> None:
    file = record(tmp_path)
    start, frozen = Event(0, "start", "start"), Event(5, "freeze", "block_0/bn frozen", (0,))
    file.manifest(replace(manifest(), events=(start,)), 0)
    file.layers(layer_table(3), 1)
    file.manifest(replace(manifest(), events=(start, frozen)), 5)
    file.layers(layer_table(3), 6)
    history = only_run(provider, tmp_path)
    assert history.manifest.events == (start, frozen)
    assert history.problems == ()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"layers": 3}', '{"format": 1}', b"\xff\xfe", "[" * 100_000],
    ids=["empty", "cut", "list", "null", "no list", "no layers", "no text", "deep"],
)
def test_a_corrupt_manifest_leaves_the_data(provider: Open, tmp_path: Path, text: str | bytes) -> None:
    file = record(tmp_path)
    file.manifest(text, 0)
    file.layers(layer_table(2, momentum=[0.9, 0.99], distance_rms=1.0), 1)
    file.losses(loss_table(inference=3.0), 1)
    history = only_run(provider, tmp_path)
    assert said(history, "manifest", "could not be used")
    assert [layer.name for layer in history.manifest.layers] == ["layer 0", "layer 1"]
    assert [layer.momentum for layer in history.manifest.layers] == pytest.approx([0.9, 0.99])
    assert history.row("distance_rms").tolist() == [[1.0, 1.0]]
    assert history.loss("inference").tolist() == [3.0]


def test_a_good_manifest_beside_a_corrupt_one_is_used(provider: Open, tmp_path: Path) -> None:
    file = record(tmp_path)
    file.manifest(manifest(layers=1), 0)
    file.layers(layer_table(1), 1)
    file.manifest("{", 2)
    history = only_run(provider, tmp_path)
    assert history.manifest.layers == manifest(layers=1).layers
    assert said(history, "1 of 2 manifests")


def test_no_manifest_at_all(provider: Open, tmp_path: Path) -> None:
    record(tmp_path).layers(layer_table(2), 3)
    history = only_run(provider, tmp_path)
    assert said(history, "manifest is missing")
    assert len(history.manifest.layers) == 2


def test_fields_of_the_wrong_type_take_their_defaults(provider: Open, tmp_path: Path) -> None:
    file = record(tmp_path)
    layer = {"name": 3, "channels": -1, "momentum": "high", "epsilon": None, "axis": 1e99, "new field": {}}
    body = {
        "layers": [layer, "?", None, {"name": "ok", "channels": 8}],
        "format": "one",
        "planned_steps": float("nan"),
        "batch_size": float("inf"),
        "replicas": -2,
        "tolerance": 0,
        "notes": ["good", 3],
        "ignore": {"rule": ["a*", 1], "other": "b"},
        "events": [{"step": 2, "kind": "note", "text": "t", "layers": [0, -1, "x"]}, 7],
        "versions": [],
        "not_evaluated": {"batch": 3, "training": "why"},
    }
    file.manifest(json.dumps(body), 0)
    file.layers(layer_table(4), 1)
    got = only_run(provider, tmp_path).manifest
    assert [layer.name for layer in got.layers] == ["layer 0", "layer 1", "layer 2", "ok"]
    assert (got.layers[0].channels, got.layers[0].momentum, got.layers[0].axis) == (0, 0.99, -1)
    assert (got.planned_steps, got.batch_size, got.replicas, got.tolerance) == (None, None, 1, 0.1)
    assert got.notes == ("good",)
    assert got.ignore == {"rule": ("a*",), "other": ("b",)}
    assert got.events == (Event(2, "note", "t", (0,)),)
    assert got.not_evaluated == {"training": "why"}


def test_a_newer_format_is_refused_with_a_sentence(provider: Open, tmp_path: Path) -> None:
    in_manifest = record(tmp_path, "a")
    in_manifest.manifest({**asdict(manifest()), "format": metadata.FORMAT + 1}, 0)
    in_manifest.layers(layer_table(3), 1)
    in_metadata = record(tmp_path, "b")
    in_metadata.tensor(metadata.LAYERS_TAG, layer_table(3), 1, content=b"17")
    data = provider(tmp_path)
    for name, found in (("a", metadata.FORMAT + 1), ("b", 17)):
        history = read_run(data, "", name)
        assert said(history, f"format {found}", "pip install -U")
        assert history.last_step is None
        assert history.last("updates").shape == (0,)


def test_metadata_that_is_no_number(provider: Open, tmp_path: Path) -> None:
    file = record(tmp_path)
    file.tensor(metadata.LAYERS_TAG, layer_table(1, momentum=0.9), 1, content=b"\xffnew")
    assert only_run(provider, tmp_path).last_step == 1


def test_unknown_rows_are_ignored_and_missing_ones_are_nan(provider: Open, tmp_path: Path) -> None:
    file = record(tmp_path)
    file.manifest(manifest(layers=2), 0)
    file.tensor(metadata.LAYERS_TAG, np.ones((2, 3), np.float32), 1)
    file.tensor(metadata.LAYERS_TAG, np.ones((2, 500), np.float32), 2)
    file.tensor(metadata.LOSSES_TAG, np.ones((1, 2), np.float32), 1)
    file.tensor(metadata.LOSSES_TAG, np.ones((1, 900), np.float32), 2)
    history = only_run(provider, tmp_path)
    assert np.isfinite(history.layers[0]).sum() == 2 * 3
    assert np.isfinite(history.layers[1]).all()
    assert history.losses.shape == (2, len(metadata.PROBES), len(metadata.LOSS_ROWS))
    assert np.isfinite(history.losses[:, 0]).sum() == 2 + len(metadata.LOSS_ROWS)
    assert np.isnan(history.losses[:, 1]).all()


@pytest.mark.parametrize(
    "value",
    [np.float32(1), np.ones(4, np.float32), np.ones((2, 3, 4), np.float32), b"text", np.ones((3, 2), np.complex64)],
    ids=["scalar", "vector", "cube", "bytes", "complex"],
)
def test_records_of_a_wrong_shape_or_type_are_left_out(provider: Open, tmp_path: Path, value: Any) -> None:
    file = record(tmp_path)
    file.manifest(manifest(layers=1), 0)
    file.layers(layer_table(1, momentum=0.9), 1)
    file.tensor(metadata.LAYERS_TAG, value, 2)
    file.layers(layer_table(1, momentum=0.9), 3)
    history = only_run(provider, tmp_path)
    assert history.steps.tolist() == [1, 3]
    assert said(history, "1 layer record was left out")


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, np.uint8, np.bool_])
def test_other_numbers_are_converted(provider: Open, tmp_path: Path, dtype: Any) -> None:
    file = record(tmp_path)
    file.manifest(manifest(layers=1), 0)
    file.tensor(metadata.LAYERS_TAG, np.ones((1, len(metadata.LAYER_ROWS)), dtype), 1)
    history = only_run(provider, tmp_path)
    assert history.layers.dtype == np.float32
    assert history.last("updates").tolist() == [1.0]


def test_a_float64_beyond_float32_is_infinite(provider: Open, tmp_path: Path) -> None:
    file = record(tmp_path)
    file.tensor(metadata.LAYERS_TAG, np.full((1, len(metadata.LAYER_ROWS)), 1e300), 1)
    assert np.isinf(only_run(provider, tmp_path).last("distance_rms")).all()


@pytest.mark.parametrize("written", [1, 2, 5])
def test_a_manifest_that_lies_about_the_number_of_layers(provider: Open, tmp_path: Path, written: int) -> None:
    file = record(tmp_path)
    file.manifest(manifest(layers=3), 0)
    file.layers(layer_table(written, updates=1.0), 1)
    file.layers(layer_table(written, updates=2.0), 2)
    history = only_run(provider, tmp_path)
    assert history.layers.shape[:2] == (2, written)
    assert len(history.manifest.layers) == written
    assert [layer.index for layer in history.manifest.layers] == list(range(written))
    assert said(history, f"{written} rows where 3 were announced") and said(history, "layer names are unknown")
    assert [layer.name for layer in history.manifest.layers] == [f"layer {i}" for i in range(written)]


def test_nan_and_infinity_everywhere(provider: Open, tmp_path: Path) -> None:
    file = record(tmp_path)
    file.manifest(manifest(layers=2), 0)
    for step, value in ((1, np.nan), (2, np.inf), (3, -np.inf)):
        file.layers(np.full((2, len(metadata.LAYER_ROWS)), value), step)
        file.losses(np.full((len(metadata.PROBES), len(metadata.LOSS_ROWS)), value), step)
    history = only_run(provider, tmp_path)
    assert np.isnan(history.layers[0]).all()
    assert np.isposinf(history.row("distance_rms")[1]).all() and np.isnan(history.row("distance_rms")[2]).all()
    assert np.isneginf(history.row("attribution")[2]).all() and np.isneginf(history.loss("inference")[2])
    assert not any("left out" in problem and "record" in problem for problem in history.problems)


def test_counts_that_cannot_be_ones_are_left_out(tmp_path: Path) -> None:
    file = record(tmp_path)
    file.manifest(manifest(layers=2), 0)
    file.layers(layer_table(2, state=[99, 1], updates=[np.inf, -1], worst_channel=[np.nan, 3], distance_rms=-np.inf), 1)
    file.losses(loss_table(forecast_step_0=np.inf, batch_size=16, inference=np.inf), 1)
    history = read_run(open_logdir(tmp_path), "", "exp")
    assert said(history, "5 values were left out", "distance_rms, state, updates") and said(history, "1 value was")
    assert np.isnan(history.last("updates")).all()
    assert np.isnan(history.last("state")).tolist() == [True, False]
    assert history.last("worst_channel")[1] == 3
    assert np.isnan(history.last("distance_rms")).all()
    assert np.isnan(history.loss("forecast_step_0")[0])
    assert np.isposinf(history.loss("inference")[0])


def test_tags_of_ours_from_elsewhere_are_not_read(provider: Open, tmp_path: Path) -> None:
    write_run(tmp_path / "exp", steps=2)
    foreign = EventFile(tmp_path / "foreign")
    foreign.tensor(metadata.LAYERS_TAG, layer_table(9), 1, plugin="someone_else")
    foreign.tensor("bn_lens/unheard_of", layer_table(9), 1)
    data = provider(tmp_path)
    assert [run.name for run in list_runs(data)] == ["exp"]


def test_an_undecodable_tensor_costs_only_part_of_its_tag(provider: Open, tmp_path: Path) -> None:
    file = record(tmp_path)
    file.manifest(manifest(layers=1), 0)
    file.losses(loss_table(inference=3.0), 1)
    broken = string_proto("x")
    broken.dtype = 14  # bfloat16, which TensorBoard cannot decode
    file.tensor(metadata.LAYERS_TAG, None, 1, proto=broken)
    for step in (2, 3):
        file.layers(layer_table(1, momentum=0.9), step)
    history = only_run(provider, tmp_path)
    assert history.loss("inference").tolist() == [3.0]
    assert history.manifest.layers == manifest(layers=1).layers
    assert said(history, "decode") or said(history, "could not be read")
    # The Python loader decodes every record of a tag for any request, so there the tag is lost.
    if provider is not python_provider:
        assert 3 in history.steps


def test_an_empty_run(provider: Open, tmp_path: Path) -> None:
    record(tmp_path).manifest(manifest(), 0)
    history = only_run(provider, tmp_path)
    assert history.last_step is None
    assert history.layers.shape == (0, 3, len(metadata.LAYER_ROWS))
    assert history.last("updates").shape == (3,)


def test_an_empty_logdir(tmp_path: Path) -> None:
    data = open_logdir(tmp_path)
    assert list_runs(data) == ()
    with pytest.raises(RunNotFound, match=r"callbacks=\[tb_bnlens.BNLens"):
        read_run(data, "", "exp")
    with pytest.raises(FileNotFoundError, match="logdir"):
        open_logdir(tmp_path / "nowhere")


def test_negative_and_huge_steps(provider: Open, tmp_path: Path) -> None:
    file = record(tmp_path)
    file.manifest(manifest(layers=1), -5)
    for step in (-5, 0, 2**40, 2**62):
        file.layers(layer_table(1), step)
    history = only_run(provider, tmp_path)
    assert history.steps.tolist() == [0, 2**40]
    assert said(history, "2 layer records were left out", "negative, or beyond")


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_a_file_that_is_cut_off(provider: Open, tmp_path: Path, keep: float) -> None:
    file = write_run(tmp_path / "exp", steps=30)
    raw = file.path.read_bytes()
    file.path.write_bytes(raw[: int(len(raw) * keep)])
    history = only_run(provider, tmp_path)
    assert 0 < len(history.steps) <= 30
    assert history.steps.tolist() == list(range(1, len(history.steps) + 1))


def test_the_command_line_says_where_a_file_is_cut_off_or_damaged(tmp_path: Path) -> None:
    cut = write_run(tmp_path / "cut", steps=30)
    cut.path.write_bytes(cut.path.read_bytes()[:-7])
    damaged = write_run(tmp_path / "damaged", steps=30)
    raw = bytearray(damaged.path.read_bytes())
    position = raw.find(b"", len(raw) // 2)
    raw[position : position + 200] = bytes(200)
    damaged.path.write_bytes(bytes(raw))
    data = open_logdir(tmp_path)
    assert said(read_run(data, "", "cut"), "is cut off at byte")
    history = read_run(data, "", "damaged")
    assert history.problems and len(history.steps) > 5


def test_a_cap_that_is_reached_is_said(tmp_path: Path) -> None:
    write_run(tmp_path / "exp", steps=20)
    data = open_logdir(tmp_path)
    assert read_run(data, "", "exp", cap=21).problems == ()
    assert said(read_run(data, "", "exp", cap=20), "keeps 20 records", "--samples_per_plugin=bn_lens=0")
    assert read_run(data, "", "exp", cap=0).problems == ()


def test_a_run_is_read_in_one_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "exp")
    data = open_logdir(tmp_path)
    calls: list[Any] = []
    whole = data.read_tensors

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs)
        return whole(*args, **kwargs)

    monkeypatch.setattr(data, "read_tensors", counted)
    read_run(data, "", "exp")
    assert len(calls) == 1


class Limited:
    """A provider whose replies fail above a number of records, as gRPC's do above 256 MiB."""

    def __init__(self, data: Any, tag: str, limit: int) -> None:
        self._data, self._tag, self._limit = data, tag, limit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    def read_tensors(self, *args: Any, downsample: int, run_tag_filter: Any, **kwargs: Any) -> Any:
        if self._tag in run_tag_filter.tags and downsample > self._limit:
            raise RuntimeError("RESOURCE_EXHAUSTED: reply of 300 MiB\nand more")
        reply = self._data.read_tensors(*args, downsample=downsample, run_tag_filter=run_tag_filter, **kwargs)
        return {run: {tag: values[-downsample:] for tag, values in tags.items()} for run, tags in reply.items()}


@pytest.mark.parametrize(("limit", "shown"), [(600, 512), (100, 16), (1, 1)])
def test_a_reply_that_is_too_large_is_read_in_part(tmp_path: Path, limit: int, shown: int) -> None:
    write_run(tmp_path / "exp", steps=700, layers=1)
    history = read_run(Limited(open_logdir(tmp_path), metadata.LAYERS_TAG, limit), "", "exp")
    assert len(history.steps) == shown
    assert history.last_step == 700
    assert len(history.loss_steps) == 140
    assert said(history, "bn_lens/layers could not be read completely", f"{shown} of its records are shown")
    assert not said(history, "and more")


def test_a_part_that_cannot_be_read_at_all_leaves_the_others(tmp_path: Path) -> None:
    write_run(tmp_path / "exp", steps=20)
    history = read_run(Limited(open_logdir(tmp_path), metadata.LAYERS_TAG, 0), "", "exp")
    assert len(history.steps) == 0 and len(history.loss_steps) == 4
    assert said(history, "bn_lens/layers could not be read (RuntimeError")
