"""Every kind of bad record, side by side in one log directory: the rest of the data, and a sentence.

``tests/test_reader.py`` has what is left of each in detail; here it is that a person is told, in the tab's data and in
the report, and that neither TensorBoard nor another plugin nor another run is the worse for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.util import tensor_util

from tb_bnlens import metadata
from tb_bnlens.cli import OK, main
from tests.conftest import wait_for
from tests.fixtures.event_files import EventFile, layer_table, loss_table, string_proto
from tests.fixtures.runs import extend_run, manifest, write_run
from tests.host.server import Server, tensorboard

Write = Callable[[Path], object]


@dataclass(frozen=True)
class Bad:
    """One way to write a bad record."""

    write: Write
    said: str = ""
    """Words of the sentence, as a regular expression; empty where there is nothing to say."""
    said_of_files: str = ""
    """Words that only the command line has: TensorBoard's loaders pass over damaged files in silence."""
    last_step: int | None = 20


def appended(tag: str, value: Any) -> Write:
    def write(directory: Path) -> None:
        write_run(directory).tensor(tag, value, 21)

    return write


def cut(directory: Path) -> None:
    file = write_run(directory)
    file.path.write_bytes(file.path.read_bytes()[:-7])


def damaged(directory: Path) -> None:
    file = write_run(directory)
    whole = file.path.read_bytes()
    extend_run(file, first_step=21, steps=5)
    raw = file.path.read_bytes()
    file.path.write_bytes(whole + bytes(40) + raw[len(whole) + 40 :])


def nan_everywhere(directory: Path) -> None:
    file = EventFile(directory / metadata.RUN_SUFFIX)
    file.manifest(manifest(), 0)
    for step in range(1, 21):
        file.layers(layer_table(3), step)
        file.losses(loss_table(), step)


def with_manifest(change: Callable[[dict[str, Any]], Any], *, layers: int = 3, last_step: int = 20) -> Write:
    def write(directory: Path) -> None:
        file = EventFile(directory / metadata.RUN_SUFFIX)
        body = change(asdict(manifest()))
        if body is not None:
            file.manifest(body, 0)
        if last_step:
            extend_run(file, layers=layers, steps=last_step)

    return write


def undecodable(directory: Path) -> None:
    file = write_run(directory)
    proto = string_proto("x")
    proto.dtype = 14  # bfloat16, which TensorBoard cannot decode
    file.tensor(metadata.MANIFEST_TAG, None, 20, proto=proto)


def format_17(directory: Path) -> None:
    EventFile(directory / metadata.RUN_SUFFIX).tensor(metadata.LAYERS_TAG, layer_table(3), 20, content=b"17")


LIES = {"unheard of": {"a": [1, {}]}, "planned_steps": -7, "events": [{"step": "soon"}], "versions": 3}

BAD: dict[str, Bad] = {
    "cut off": Bad(cut, said_of_files="is cut off at byte"),
    "damaged": Bad(damaged, said_of_files="is damaged at byte"),
    "a vector": Bad(appended(metadata.LAYERS_TAG, np.ones(4, np.float32)), "1 layer record was left out"),
    "text": Bad(appended(metadata.LAYERS_TAG, b"text"), "1 layer record was left out"),
    "a cube of losses": Bad(appended(metadata.LOSSES_TAG, np.ones((2, 2, 2), np.float32)), "1 probe was left out"),
    "evidence that is no JSON": Bad(
        appended(metadata.EVIDENCE_TAG, b"{"), "1 of 1 measurements on many batches could not be used"
    ),
    "NaN everywhere": Bad(nan_everywhere),
    "fewer layers than records": Bad(with_manifest(lambda body: body, layers=5), "5 rows where 3 were announced"),
    "more layers than records": Bad(with_manifest(lambda body: body, layers=2), "2 rows where 3 were announced"),
    "unknown fields and impossible ones": Bad(
        with_manifest(lambda body: body | LIES), "cannot be, and defaults stand for it: planned_steps, step, versions"
    ),
    "a newer format": Bad(with_manifest(lambda body: body | {"format": 2}), "written in format 2, newer"),
    "a newer format by its metadata": Bad(format_17, "written in format 17, newer"),
    "no JSON": Bad(with_manifest(lambda body: "{"), "The manifest could not be used"),
    "no layers": Bad(with_manifest(lambda body: {"format": 1}), "it lists no layers"),
    "no manifest": Bad(with_manifest(lambda body: None), "The manifest is missing"),
    "nothing but a manifest": Bad(with_manifest(lambda body: body, last_step=0), last_step=None),
    "a tensor of another kind": Bad(undecodable, "could not be read|cannot be decoded"),
    "deep/'<b>\"&amp;\n日本語 %2F ü?run=x#": Bad(lambda directory: write_run(directory) and None),
}


@pytest.fixture(scope="module")
def bad_logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    logdir = tmp_path_factory.mktemp("bad")
    for name, bad in BAD.items():
        bad.write(logdir / name)
    foreign = EventFile(logdir / "foreign")
    foreign.tensor(metadata.LAYERS_TAG, layer_table(9), 1, plugin="someone_else")
    scalar = summary_pb2.Summary()
    value = scalar.value.add(tag="loss", tensor=tensor_util.make_tensor_proto(np.float32(0.25)))
    value.metadata.plugin_data.plugin_name = "scalars"
    value.metadata.data_class = summary_pb2.DATA_CLASS_SCALAR
    foreign.event(event_pb2.Event(wall_time=foreign.clock, step=3, summary=scalar))
    (logdir / "empty" / metadata.RUN_SUFFIX).mkdir(parents=True)
    (logdir / "nothing").mkdir()
    (logdir / "nothing" / "events.out.tfevents.1").touch()
    return logdir


@pytest.fixture(scope="module", params=["true", "false"], ids=lambda p: f"load_fast={p}")
def bad_server(request: pytest.FixtureRequest, bad_logdir: Path, viewer_python: str) -> Iterator[Server]:
    with tensorboard(bad_logdir, f"--load_fast={request.param}", python=viewer_python) as server:
        wait_for(lambda: len(server.run_names()) == len(BAD), "all runs")
        wait_for(lambda: server.get("data/plugin/scalars/tags").json.get("foreign"), "the other plugin's data")
        yield server


def test_all_are_listed_and_nothing_else(bad_server: Server) -> None:
    assert bad_server.run_names() == sorted(BAD)


@pytest.mark.parametrize("name", BAD)
def test_the_tab_gets_the_rest_and_a_sentence(bad_server: Server, name: str) -> None:
    bad = BAD[name]
    overview = bad_server.plugin("overview", run=name)
    assert overview.status == 200, overview.body
    assert overview.json["run"] == name
    notes = " ".join(overview.json["notes"])
    assert re.search(bad.said, notes)
    if not bad.said:
        assert "left out" not in notes
    if bad.last_step and "newer" not in bad.said:
        assert overview.json["last_step"] == bad.last_step
    for route, query in (("losses", {}), ("series", {"row": "distance_rms"}), ("series", {"row": "steps_to_converge"})):
        assert bad_server.plugin(route, run=name, **query).status == 200
    for route in ("layer", "channels"):
        assert bad_server.plugin(route, run=name, layer=0).status in (200, 404)


def test_another_plugin_and_tensorboard_are_none_the_worse(bad_server: Server) -> None:
    for name in BAD:
        bad_server.plugin("overview", run=name)
    listing = bad_server.get("data/plugins_listing").json
    assert listing["scalars"]["enabled"] and listing[metadata.PLUGIN_NAME]["enabled"]
    ((_, step, value),) = bad_server.get("data/plugin/scalars/scalars", run="foreign", tag="loss").json
    assert (step, value) == (3, 0.25)
    assert bad_server.process.poll() is None
    assert "BN Lens: " not in bad_server.log and "fault of BN Lens" not in bad_server.log


def test_the_report_gives_the_rest_and_a_sentence(bad_logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(bad_logdir), "--json"]) == OK
    runs = {run["run"]: run for run in json.loads(capsys.readouterr().out)["runs"]}
    assert sorted(runs) == sorted(BAD)
    for name, bad in BAD.items():
        notes = " ".join(runs[name]["notes"])
        assert re.search(bad.said, notes) and bad.said_of_files in notes, name
        assert bool(runs[name]["notes"]) == bool(bad.said or bad.said_of_files), name
        assert [f["rule"] for f in runs[name]["findings"] if f["status"] == "error"] == [], name
        if "newer" not in bad.said:
            assert runs[name]["last_step"] == bad.last_step, name
        if bad.last_step and bad.last_step == 20 and name != "NaN everywhere" and "newer" not in bad.said:
            assert runs[name]["losses"]["inference"] > 1, f"{name}: its losses are whole"


@pytest.mark.parametrize("name", BAD)
def test_the_terminal_says_it(bad_logdir: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(bad_logdir), "--run", name]) == OK
    shown = " ".join(capsys.readouterr().out.split())
    assert re.search(BAD[name].said, shown) and BAD[name].said_of_files in shown
