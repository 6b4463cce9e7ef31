"""A logdir that changes while TensorBoard serves it."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import wait_for
from tests.fixtures.runs import extend_run, write_run
from tests.host.server import Server, tensorboard


def last_step(server: Server, run: str) -> int | None:
    return next((e["last_step"] for e in server.plugin("runs").json["runs"] if e["run"] == run), None)


@pytest.fixture(params=["true", "false"], ids=lambda p: f"load_fast={p}")
def flags(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return (f"--load_fast={request.param}", "--reload_interval=1")


def test_a_run_that_is_being_written(tmp_path: Path, viewer_python: str, flags: tuple[str, ...]) -> None:
    file = write_run(tmp_path / "exp", steps=10)
    with tensorboard(tmp_path, *flags, python=viewer_python) as server:
        said = server.log
        wait_for(lambda: last_step(server, "exp") == 10, "step 10")
        first = server.plugin("overview", run="exp")
        extend_run(file, first_step=11, steps=15)
        wait_for(lambda: last_step(server, "exp") == 25, "step 25")
        second = server.plugin("overview", run="exp", headers={"If-None-Match": first.headers["ETag"]})
        assert second.status == 200
        assert (first.json["records"], second.json["records"]) == (10, 25)

        write_run(tmp_path / "later", steps=3)
        wait_for(lambda: last_step(server, "later") == 3, "the second run")
        assert server.run_names() == ["exp", "later"]
        tags: dict[str, str] = {}
        for _ in range(3):
            for route in ("runs", "overview", "losses"):
                query = {} if route == "runs" else {"run": "exp"}
                reply = server.plugin(route, headers={"If-None-Match": tags.get(route, "")}, **query)
                assert reply.status == (304 if route in tags else 200)
                tags[route] = reply.headers["ETag"]
        assert server.log == said, "polling writes nothing to the console"


def test_a_run_that_is_deleted_and_made_again(tmp_path: Path, viewer_python: str, flags: tuple[str, ...]) -> None:
    write_run(tmp_path / "stays", steps=5)
    write_run(tmp_path / "exp", steps=30)
    with tensorboard(tmp_path, *flags, python=viewer_python) as server:
        wait_for(lambda: last_step(server, "exp") == 30, "step 30")
        assert server.plugin("overview", run="exp").json["last_step"] == 30
        shutil.rmtree(tmp_path / "exp")
        wait_for(lambda: server.run_names() == ["stays"], "the run to go")
        assert server.plugin("overview", run="exp").status == 404
        write_run(tmp_path / "exp", steps=8, layers=5)
        wait_for(lambda: last_step(server, "exp") == 8, "the new run")
        overview = server.plugin("overview", run="exp").json
        assert (overview["last_step"], len(overview["layers"])) == (8, 5)


def test_hundreds_of_requests_while_it_reloads(tmp_path: Path, viewer_python: str, flags: tuple[str, ...]) -> None:
    file = write_run(tmp_path / "exp", steps=50, layers=8)
    write_run(tmp_path / "other", steps=50)
    with tensorboard(tmp_path, *flags, python=viewer_python) as server:
        wait_for(lambda: last_step(server, "exp") == 50 and last_step(server, "other") == 50, "both runs")

        def ask(i: int) -> int:
            if i % 20 == 0:
                extend_run(file, first_step=51 + i, steps=2, layers=8)
            run = "exp" if i % 3 else "other"
            route, query = (
                ("runs", {}),
                ("overview", {"run": run}),
                ("losses", {"run": run}),
                ("series", {"run": run, "row": "distance_rms"}),
                ("layer", {"run": run, "layer": i % 3}),
                ("channels", {"run": run, "layer": i % 3}),
                ("index.js", {}),
            )[i % 7]
            return server.plugin(route, **query).status

        with ThreadPoolExecutor(32) as pool:
            assert set(pool.map(ask, range(400))) == {200}
        assert "Traceback" not in server.log
        wait_for(lambda: last_step(server, "exp") == 432, "the last step")
        steps = server.plugin("series", run="exp", row="updates").frame["steps"]
        assert len(steps) == 50 + 2 * 20
