"""What all tests share: which of them run, and where; missing tools; TensorBoard's loaders as data providers."""

from __future__ import annotations

import functools
import gc
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.selection import ROOT as ROOT
from tests.selection import trains

IN_CI = bool(os.environ.get("CI"))

# One worker per core: the threads of TensorFlow's own pools would only compete with the other workers.
if "PYTEST_XDIST_WORKER" in os.environ:
    for pool in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(pool, "1")


# Fixtures that start TensorBoard, or ask for the environment that it runs in.
SERVERS = {"server", "viewer_python"}
# Fixtures that are worth one worker: what they train or start is used by several files.
GROUPS = {"browser": "stories", "story": "stories", "demonstrated": "stories", "server": "server"}
# Real trainings, what stands on them, and the same code on many inputs. Of 19,842 lines that tests run, 120 are run by
# nothing else, and coverage takes two fifths of their time before Python 3.12.
NOT_MEASURED = (
    "tests/browser/",
    "tests/capture/test_company.py",
    "tests/capture/test_evidence.py",
    "tests/capture/test_fits.py",
    "tests/capture/test_layer_states.py",
    "tests/capture/test_matrix.py",
    "tests/capture/test_measures.py",
    "tests/capture/test_phases.py",
    "tests/diagnosis/test_compositions.py",
    "tests/diagnosis/test_fixes.py",
    "tests/diagnosis/test_real_runs.py",
    "tests/diagnosis/test_rescues.py",
    "tests/diagnosis/test_sentences.py",
    "tests/host/test_fuzz.py",
    "tests/host/test_mutations.py",
    "tests/test_notebook.py",
    "tests/test_stories.py",
)
SHARED_IN_A_FILE = re.compile(r'scope="module"|lru_cache')


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-training", action="store_true", help="leave out the test files that import TensorFlow or Keras"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    left_out = config.getoption("--no-training") or importlib.util.find_spec("tensorflow") is None
    if left_out and collection_path.name.startswith("test_") and collection_path.suffix == ".py":
        return trains(collection_path) or None
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what starts TensorBoard, and keep together what shares something: see ``--dist loadgroup`` of xdist."""
    files: dict[Path, str | None] = {}
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        if used & SERVERS:
            item.add_marker("server")
        path = item.path.relative_to(ROOT).as_posix()
        if item.path not in files:
            shared = SHARED_IN_A_FILE.search(item.path.read_text(encoding="utf-8"))
            files[item.path] = path if shared else None
        group = next((name for fixture, name in GROUPS.items() if fixture in used), files[item.path])
        if group is not None and config.pluginmanager.has_plugin("xdist"):
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Leave what is NOT_MEASURED out of the coverage, with the trainings of its fixtures."""
    tracer = sys.gettrace() if item.config.pluginmanager.hasplugin("_cov") else None
    if tracer is None or not item.path.relative_to(ROOT).as_posix().startswith(NOT_MEASURED):
        return (yield)
    # Not by the mark of pytest-cov: a worker of xdist has two collectors, and the mark pauses one of them.
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)


def pytest_collection_finish() -> None:
    """Keep what was imported out of garbage collection: with TensorFlow loaded, a full one takes half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def demonstrated(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """``python -m demo frozen-base``: what it printed. The last argument is where it put the records."""
    logdir = tmp_path_factory.mktemp("demo") / "new"
    command = [sys.executable, "-m", "demo", "frozen-base", "--no-serve", "--logdir", str(logdir)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=True)


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Callable[[str, str, int], Path]:
    """Train a run of a story of ``demo/`` once, and give the directory of its record, ``LOGDIR/RUN``."""

    @functools.cache
    def train(story: str, run: str, seed: int = 0) -> Path:
        if (story, seed) == ("frozen_base", 0):
            return Path(request.getfixturevalue("demonstrated").args[-1]) / "frozen-base" / run
        record = tmp_path_factory.mktemp(story) / run
        importlib.import_module(f"demo.{story}").RUNS[run](str(record), seed=seed)
        return record

    return train


def skip_unless_ci(what: str) -> NoReturn:
    """A user's machine may lack a tool; where the project is judged, nothing is passed over."""
    if IN_CI:
        pytest.fail(f"{what} (and CI skips nothing)")
    pytest.skip(what)


@pytest.fixture(scope="session")
def viewer_python() -> str:
    """Python of an environment with TensorBoard and no TensorFlow."""
    python = ROOT / ".venv-viewer" / "bin" / "python"
    if not python.exists():
        skip_unless_ci("no environment without TensorFlow; make test makes one in .venv-viewer")
    return str(python)


@pytest.fixture(params=["files", "python", "rust"])
def provider(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Path], Any]]:
    """Opens a logdir with the command line's provider, or with either of TensorBoard's."""
    if request.param == "files":
        from tb_bnlens.reader import open_logdir

        yield open_logdir
    elif request.param == "python":
        yield python_provider
    else:
        servers: list[subprocess.Popen[bytes]] = []
        yield lambda logdir: rust_provider(logdir, tmp_path / "port", servers)
        for server in servers:
            assert server.stdin
            server.stdin.close()
            server.wait(10)


def python_provider(logdir: Path) -> Any:
    """What ``tensorboard --load_fast=false`` reads through, with our sampling default."""
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer, tag_types

    from tb_bnlens import metadata
    from tb_bnlens.plugin.loader import CHANNEL_RECORDS_KEPT, RECORDS_KEPT

    multiplexer = plugin_event_multiplexer.EventMultiplexer(
        size_guidance={tag_types.TENSORS: 10},
        tensor_size_guidance={
            metadata.PLUGIN_NAME: RECORDS_KEPT,
            metadata.CHANNELS_PLUGIN_NAME: CHANNEL_RECORDS_KEPT,
        },
    )
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    return data_provider.MultiplexerDataProvider(multiplexer, str(logdir))


def rust_provider(logdir: Path, port_file: Path, servers: list[subprocess.Popen[bytes]]) -> Any:
    """What ``tensorboard --load_fast=true`` reads through, with our sampling default."""
    grpc = pytest.importorskip("grpc")
    binary = pytest.importorskip("tensorboard_data_server").server_binary()
    if binary is None:
        pytest.skip("TensorBoard has no Rust loader for this machine")
    from tensorboard.data import grpc_provider

    from tb_bnlens import metadata
    from tb_bnlens.plugin.loader import CHANNEL_RECORDS_KEPT, RECORDS_KEPT

    samples = f"{metadata.PLUGIN_NAME}={RECORDS_KEPT},{metadata.CHANNELS_PLUGIN_NAME}={CHANNEL_RECORDS_KEPT}"
    port_file.unlink(missing_ok=True)
    flags = [f"--logdir={logdir}", "--reload=once", f"--samples-per-plugin={samples}", f"--port-file={port_file}"]
    server = subprocess.Popen(
        [binary, *flags, "--port=0", "--die-after-stdin"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    servers.append(server)
    wait_for(lambda: port_file.exists() and port_file.read_text().endswith("\n"), "the data server's port")
    channel = grpc.insecure_channel(
        f"127.0.0.1:{port_file.read_text().strip()}", options=[("grpc.max_receive_message_length", 256 * 2**20)]
    )
    grpc.channel_ready_future(channel).result(timeout=20)
    provider = grpc_provider.GrpcDataProvider("test", grpc_provider.make_stub(channel))
    _settled(provider)
    return provider


def _settled(provider: Any) -> None:
    """Wait until two listings are equal: the server answers while it is still loading."""
    from tensorboard.context import RequestContext

    from tb_bnlens import metadata

    previous: object = None
    for _ in range(100):
        listing = provider.list_tensors(RequestContext(), experiment_id="", plugin_name=metadata.PLUGIN_NAME)
        now = repr(sorted(listing.items()))
        if now == previous and listing:
            return
        previous = now
        time.sleep(0.1)


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60.0) -> Any:
    """The first true value of a condition that is tried ten times a second."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    pytest.fail(f"{what} did not come within {seconds:.0f} s")
