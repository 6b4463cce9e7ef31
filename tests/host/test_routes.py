"""The routes inside TensorBoard's own application: wrong requests, failing providers, no file but the bundle's."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tensorboard import errors
from tensorboard.backend import application
from tensorboard.plugins import base_plugin
from werkzeug.test import Client, TestResponse

from tb_bnlens import metadata
from tb_bnlens.history import History
from tb_bnlens.plugin import plugin as plugin_module
from tb_bnlens.plugin import static_files
from tb_bnlens.plugin.plugin import BNLensPlugin
from tb_bnlens.reader import open_logdir
from tb_bnlens.report import run_report
from tb_bnlens.report.schema import Overview
from tests.fixtures.event_files import EventFile
from tests.fixtures.runs import extend_run, manifest, write_run

PREFIX = "/data/plugin/bn_lens/"
RUN_ROUTES = (
    "overview?run={}",
    "summary?run={}",
    "losses?run={}",
    "series?run={}&row=updates",
    "layer?run={}&layer=0",
    "channels?run={}&layer=0",
)


def body(reply: TestResponse) -> Any:
    """The JSON of a reply."""
    assert reply.json is not None
    return reply.json


def client(data: Any, cap: int | None = None) -> Client:
    context = base_plugin.TBContext(data_provider=data, sampling_hints={metadata.PLUGIN_NAME: cap} if cap else {})
    return Client(application.TensorBoardWSGI([BNLensPlugin(context)], data_provider=data))


@pytest.fixture
def logdir(tmp_path: Path) -> Path:
    write_run(tmp_path / "exp")
    return tmp_path


def refused(reply: TestResponse, status: int, *words: str) -> None:
    assert reply.status_code == status
    assert reply.content_type == "application/json"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert list(body(reply)) == ["error"]
    for word in words:
        assert word in body(reply)["error"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("route", ["runs", "index.js", *RUN_ROUTES])
def test_get_only(logdir: Path, route: str, method: str) -> None:
    reply = client(open_logdir(logdir)).open(PREFIX + route.format("exp"), method=method)
    assert reply.status_code == 405
    assert reply.headers["Allow"] == "GET"


@pytest.mark.parametrize("route", RUN_ROUTES)
def test_run_parameter(logdir: Path, route: str) -> None:
    web = client(open_logdir(logdir))
    refused(web.get(PREFIX + route.replace("run={}&", "").replace("run={}", "")), 400, "run is missing")
    refused(web.get(PREFIX + route.format("")), 400, "run is empty")
    refused(web.get(PREFIX + route.format("exp&run=exp")), 400, "more than once")
    refused(web.get(PREFIX + route.format("other")), 404, "'other'", "'exp'")
    refused(web.get(PREFIX + route.format("..%2F..%2Fetc%2Fpasswd")), 404)
    refused(web.get(PREFIX + route.format("%00%ff")), 404)


@pytest.mark.parametrize("layer", ["-1", "1.0", "x", "1e1", "%20" + "1", "1_0", "%EF%BC%91", "9" * 40, "0x1"])
@pytest.mark.parametrize("route", ["layer", "channels"])
def test_layer_parameter(logdir: Path, route: str, layer: str) -> None:
    refused(client(open_logdir(logdir)).get(f"{PREFIX}{route}?run=exp&layer={layer}"), 400, "layer is", "whole number")


@pytest.mark.parametrize("route", ["layer", "channels"])
def test_layer_that_is_not_there(logdir: Path, route: str) -> None:
    refused(client(open_logdir(logdir)).get(f"{PREFIX}{route}?run=exp&layer=3"), 404, "has 3 layers")


def test_row_parameter(logdir: Path) -> None:
    web = client(open_logdir(logdir))
    refused(web.get(PREFIX + "series?run=exp"), 400, "row is missing")
    refused(web.get(PREFIX + "series?run=exp&row=nothing"), 400, "'nothing'", "distance_rms")


@pytest.mark.parametrize(
    "path", ["", "index.html", "LICENSES.md", "../metadata.py", "%2e%2e/metadata.py", "static/index.js", "index.js.map"]
)
def test_no_file_but_the_bundle_s(logdir: Path, path: str) -> None:
    assert client(open_logdir(logdir)).get(PREFIX + path).status_code == 404


def test_a_missing_bundle_says_what_to_run(logdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_files, "STATIC", tmp_path / "nowhere")
    reply = client(open_logdir(logdir)).get(PREFIX + "index.js")
    assert reply.status_code == 200
    assert "make frontend" in reply.text and "export function render" in reply.text


def test_an_empty_logdir(tmp_path: Path) -> None:
    web = client(open_logdir(tmp_path))
    assert web.get(PREFIX + "runs").json == {"runs": [], "problems": []}
    refused(web.get(PREFIX + "overview?run=x"), 404, "BNLens(log_dir)], or in PyTorch with tb_bnlens.torch.Recorder")


def test_no_data_provider() -> None:
    refused(client(None).get(PREFIX + "runs"), 404, "generic_data")


class Failing:
    """A provider whose methods raise, or wait."""

    def __init__(self, data: Any, **behaviour: Callable[[], None]) -> None:
        self._data = data
        self.behaviour = behaviour

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._data, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.behaviour.get(name, lambda: None)()
            return method(*args, **kwargs)

        return call


def raises(error: Exception) -> Callable[[], None]:
    def behave() -> None:
        raise error

    return behave


@pytest.mark.parametrize("route", ["runs", *RUN_ROUTES])
def test_a_provider_that_fails(logdir: Path, route: str, caplog: pytest.LogCaptureFixture) -> None:
    web = client(Failing(open_logdir(logdir), list_tensors=raises(RuntimeError("no <b>disk</b>"))))
    with caplog.at_level(logging.ERROR):
        refused(web.get(PREFIX + route.format("exp")), 500, "RuntimeError: no <b>disk</b>")
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("route", RUN_ROUTES)
def test_a_provider_that_cannot_read(logdir: Path, route: str) -> None:
    web = client(Failing(open_logdir(logdir), read_tensors=raises(ValueError("bad tensor"))))
    refused(web.get(PREFIX + route.format("exp")), 500, "bad tensor", "Reload")


def test_a_provider_s_own_error_keeps_its_status(logdir: Path) -> None:
    web = client(Failing(open_logdir(logdir), list_tensors=raises(errors.PermissionDeniedError("not yours"))))
    refused(web.get(PREFIX + "runs"), 403, "not yours")


def test_a_slow_provider_holds_up_nobody_else(logdir: Path) -> None:
    """One run's read that takes its time: the list, the bundle and other runs answer meanwhile."""
    write_run(logdir / "other")
    reading, release = threading.Event(), threading.Event()
    data = Failing(open_logdir(logdir))
    web = client(data)

    def slow() -> None:
        data.behaviour.clear()
        reading.set()
        assert release.wait(30)

    data.behaviour["read_tensors"] = slow
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(web.get, PREFIX + "overview?run=exp")
        assert reading.wait(30)
        for route in ("runs", "index.js", *(route.format("other") for route in RUN_ROUTES)):
            assert web.get(PREFIX + route).status_code == 200, route
        assert not waiting.done()
        release.set()
        assert waiting.result().status_code == 200


def test_a_failure_is_not_kept(logdir: Path) -> None:
    data = Failing(open_logdir(logdir), read_tensors=raises(ValueError("once")))
    web = client(data)
    assert web.get(PREFIX + "overview?run=exp").status_code == 500
    data.behaviour.clear()
    assert web.get(PREFIX + "overview?run=exp").status_code == 200


def test_an_analysis_that_fails_leaves_the_rest(logdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tb_bnlens.report.run_report", raises_any)
    web = client(open_logdir(logdir))
    refused(web.get(PREFIX + "overview?run=exp"), 500, "ZeroDivisionError", "fault of BN Lens")
    assert web.get(PREFIX + "runs").status_code == 200
    assert web.get(PREFIX + "losses?run=exp").status_code == 200


def raises_any(*unused: object) -> None:
    raise ZeroDivisionError("division by zero")


def test_the_list_of_runs_never_waits_for_an_analysis(logdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, release = threading.Event(), threading.Event()

    def slow(history: History) -> Overview:
        started.set()
        assert release.wait(30)
        return run_report(history)

    monkeypatch.setattr("tb_bnlens.report.run_report", slow)
    web = client(open_logdir(logdir))
    with ThreadPoolExecutor() as pool:
        overview = pool.submit(web.get, PREFIX + "overview?run=exp")
        assert started.wait(30)
        assert body(web.get(PREFIX + "runs"))["runs"][0]["severity"] is None
        release.set()
        assert overview.result().status_code == 200
    (entry,) = body(web.get(PREFIX + "runs"))["runs"]
    report = body(overview.result())
    assert {key: entry[key] for key in ("run", "severity", "verdict", "last_step")} == {
        "run": "exp",
        "severity": report["severity"],
        "verdict": report["verdict"],
        "last_step": 20,
    }
    assert entry["summary"] == web.get(PREFIX + "summary?run=exp").json


def test_a_summary_outlives_the_report_it_was_made_of(logdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_module, "OVERVIEW_BYTES", 0)
    analysed = []

    def counted(history: History) -> Overview:
        analysed.append(history.run)
        return run_report(history)

    monkeypatch.setattr("tb_bnlens.report.run_report", counted)
    web = client(open_logdir(logdir))
    first = body(web.get(PREFIX + "summary?run=exp"))
    assert first["layers"] == len(body(web.get(PREFIX + "overview?run=exp"))["layers"])
    analysed.clear()
    assert web.get(PREFIX + "summary?run=exp").json == first and analysed == []


def test_requests_at_once_share_one_analysis(logdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def slow(history: History) -> Overview:
        calls.append(history)
        time.sleep(0.2)
        return run_report(history)

    monkeypatch.setattr("tb_bnlens.report.run_report", slow)
    web = client(open_logdir(logdir))
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: web.get(PREFIX + "overview?run=exp").status_code, range(48)))
    assert replies == [200] * 48
    assert len(calls) == 1


def test_a_run_that_grew_is_analysed_again(logdir: Path) -> None:
    first = client(open_logdir(logdir)).get(PREFIX + "overview?run=exp")
    file = EventFile(logdir / "exp" / metadata.RUN_SUFFIX, name="events.out.tfevents.1700000900.h.1.0", clock=2e9)
    extend_run(file, first_step=21, steps=5)
    second = client(open_logdir(logdir)).get(PREFIX + "overview?run=exp")
    assert (body(first)["last_step"], body(second)["last_step"]) == (20, 25)
    assert first.headers["ETag"] != second.headers["ETag"]


def test_dropped_records_are_said_in_the_notes(logdir: Path) -> None:
    reply = client(open_logdir(logdir), cap=20).get(PREFIX + "overview?run=exp")
    assert any("--samples_per_plugin=bn_lens=0" in note for note in body(reply)["notes"])


def test_names_are_data(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>\"'&\u202e\U0001f600"
    file = EventFile(tmp_path / "x" / metadata.RUN_SUFFIX)
    layers = [{"name": name, "momentum": 0.9, "channels": 4}]
    file.manifest({"layers": layers, "format": manifest(layers=1).format}, 0)
    reply = client(open_logdir(tmp_path)).get(PREFIX + "overview?run=x")
    assert reply.content_type == "application/json"
    assert body(reply)["layers"][0]["name"] == name


class Counting(Failing):
    """A provider that tells how often it was read, and when the reading begins."""

    def __init__(self, data: Any) -> None:
        super().__init__(data, read_tensors=self._read)
        self.reads = 0
        self.began = threading.Event()

    def _read(self) -> None:
        self.reads += 1
        self.began.set()


def test_the_only_run_is_analysed_while_the_module_is_on_its_way(logdir: Path) -> None:
    data = Counting(open_logdir(logdir))
    web = client(data)
    assert web.get(PREFIX + "index.js").status_code == 200
    assert data.began.wait(30)
    assert web.get(PREFIX + "overview?run=exp").status_code == 200
    assert data.reads == 1


def test_of_several_runs_none_is_analysed_before_it_is_asked_for(logdir: Path) -> None:
    write_run(logdir / "other")
    data = Counting(open_logdir(logdir))
    web = client(data)
    web.get(PREFIX + "index.js")
    assert not data.began.wait(1)


def test_what_fails_ahead_of_a_request_is_told_to_the_request(logdir: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = Failing(open_logdir(logdir), list_tensors=raises(RuntimeError("no disk")))
    web = client(data)
    assert web.get(PREFIX + "index.js").status_code == 200
    refused(web.get(PREFIX + "runs"), 500, "no disk")
    data.behaviour.clear()
    assert web.get(PREFIX + "overview?run=exp").status_code == 200
