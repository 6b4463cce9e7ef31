"""What a real TensorBoard serves, with either loader, with and without TensorFlow."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from tb_bnlens import metadata
from tb_bnlens.plugin.wire import to_json
from tb_bnlens.reader import open_logdir, read_channels, read_run
from tb_bnlens.report import run_report
from tests.conftest import wait_for
from tests.host.conftest import NAMES
from tests.host.server import Reply, Server


def loaded(server: Server) -> None:
    def complete() -> bool:
        steps = [entry["last_step"] for entry in server.plugin("runs").json["runs"]]
        channels = server.plugin("channels", run=NAMES[1], layer=2) if len(steps) == 2 else None
        return steps == [40, 20] and channels is not None and len(channels.frame["steps"]) == 1

    wait_for(complete, "the whole logdir")


def test_the_viewer_has_no_tensorflow(viewer_python: str) -> None:
    found = subprocess.run([viewer_python, "-c", "import tensorflow"], capture_output=True, check=False)
    assert b"ModuleNotFoundError" in found.stderr


def test_the_tab_is_active(server: Server) -> None:
    loaded(server)
    listing = server.get("data/plugins_listing").json[metadata.PLUGIN_NAME]
    assert listing["enabled"]
    assert listing["tab_name"] == "BN Lens"
    assert listing["loading_mechanism"] == {"type": "IFRAME", "module_path": "/data/plugin/bn_lens/index.js"}
    assert server.get("data/plugin_entry.html", name="bn_lens").status == 200


def test_the_runs(server: Server) -> None:
    loaded(server)
    reply = server.plugin("runs").json
    assert [entry["run"] for entry in reply["runs"]] == NAMES
    assert reply["problems"] == []


@pytest.mark.parametrize("run", NAMES)
def test_the_overview_is_the_command_line_s_report(server: Server, logdir: Path, run: str) -> None:
    loaded(server)
    served = server.plugin("overview", run=run)
    assert served.status == 200
    assert served.body == to_json(run_report(read_run(open_logdir(logdir), "", run)))
    entry = next(entry for entry in server.plugin("runs").json["runs"] if entry["run"] == run)
    assert (entry["severity"], entry["verdict"]) == (served.json["severity"], served.json["verdict"])


@pytest.mark.parametrize("run", NAMES)
def test_the_frames_are_what_was_written(server: Server, logdir: Path, run: str) -> None:
    loaded(server)
    data = open_logdir(logdir)
    history = read_run(data, "", run)

    series = server.plugin("series", run=run, row="distance_rms").frame
    assert np.array_equal(series["steps"], history.steps)
    assert np.array_equal(series["wall_times"], history.wall_times)
    assert np.array_equal(series["values"], history.row("distance_rms"), equal_nan=True)
    assert server.plugin("series", run=run, row="steps_to_converge").frame["values"].shape == series["values"].shape
    ratio = history.row("moving_variance_gm") / history.row("batch_variance_gm")
    served = server.plugin("series", run=run, row="variance_ratio").frame["values"]
    assert np.array_equal(served, ratio, equal_nan=True)

    layer = server.plugin("layer", run=run, layer=2).frame
    assert list(layer) == ["steps", "wall_times", *metadata.LAYER_ROWS]
    for row in metadata.LAYER_ROWS:
        assert np.array_equal(layer[row], history.row(row)[:, 2], equal_nan=True)

    losses = server.plugin("losses", run=run).frame
    assert np.array_equal(losses["steps"], history.loss_steps)
    assert np.array_equal(losses["train/inference"], history.loss("inference"))
    assert not any(name.startswith("validation/") for name in losses)

    channels = server.plugin("channels", run=run, layer=1).frame
    expected = read_channels(data, "", run, 1)
    assert np.array_equal(channels["steps"], expected.steps)
    assert np.array_equal(channels["values"], expected.values)


def test_types_and_headers(server: Server) -> None:
    loaded(server)

    def check(reply: Reply, kind: str) -> None:
        assert reply.headers["Content-Type"].startswith(kind)
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["Cache-Control"].startswith("no-cache")

    check(server.plugin("runs"), "application/json")
    check(server.plugin("overview", run=NAMES[0]), "application/json")
    check(server.plugin("losses", run=NAMES[0]), "application/octet-stream")
    check(server.plugin("index.js"), "text/javascript")
    check(server.plugin("overview"), "application/json")
    assert "In 3.0, this warning will become an error" not in server.log


def test_an_unchanged_answer_is_not_sent_again(server: Server) -> None:
    loaded(server)
    server.plugin("overview", run=NAMES[0])
    for route, query in (
        ("runs", {}),
        ("overview", {"run": NAMES[0]}),
        ("losses", {"run": NAMES[0]}),
        ("series", {"run": NAMES[0], "row": "updates"}),
        ("layer", {"run": NAMES[0], "layer": 1}),
        ("channels", {"run": NAMES[0], "layer": 1}),
        ("index.js", {}),
    ):
        first = server.plugin(route, **query)
        again = server.plugin(route, headers={"If-None-Match": first.headers["ETag"]}, **query)
        assert (again.status, again.body) == (304, b""), route
        # TensorBoard writes to its console for a response without it.
        assert first.headers["Content-Type"].startswith(again.headers["Content-Type"])
        assert again.headers["ETag"] == first.headers["ETag"]
        assert server.plugin(route, headers={"If-None-Match": '"other"'}, **query).status == 200
    assert "Content-Type" not in server.log


def test_gzip_where_it_is_accepted(server: Server) -> None:
    loaded(server)
    for route, query in (("overview", {}), ("layer", {"layer": 1})):
        plain = server.plugin(route, run=NAMES[0], **query)
        packed = server.plugin(route, run=NAMES[0], headers={"Accept-Encoding": "gzip"}, **query)
        assert "Content-Encoding" not in plain.headers
        assert packed.headers["Content-Encoding"] == "gzip"
        assert packed.body == plain.body
        assert int(packed.headers["Content-Length"]) < len(plain.body)


def test_an_experiment_in_the_address(server: Server) -> None:
    loaded(server)
    assert server.get("experiment/abc/data/plugin/bn_lens/overview", run=NAMES[0]).status == 200
