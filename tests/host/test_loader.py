"""Nothing in the loader can stop TensorBoard from starting."""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from tensorboard.plugins import base_plugin

from tb_bnlens import metadata
from tb_bnlens.plugin.loader import CHANNEL_RECORDS_KEPT, RECORDS_KEPT, BNLensLoader
from tests.conftest import wait_for
from tests.fixtures.runs import write_run
from tests.host.server import tensorboard


def test_our_sampling_default_and_the_user_s_own_value() -> None:
    flags = argparse.Namespace(samples_per_plugin={"scalars": 3, metadata.PLUGIN_NAME: 7})
    BNLensLoader().fix_flags(flags)
    assert flags.samples_per_plugin == {
        "scalars": 3,
        metadata.PLUGIN_NAME: 7,
        metadata.CHANNELS_PLUGIN_NAME: CHANNEL_RECORDS_KEPT,
    }
    flags = argparse.Namespace(samples_per_plugin={})
    BNLensLoader().fix_flags(flags)
    assert flags.samples_per_plugin[metadata.PLUGIN_NAME] == RECORDS_KEPT


class Odd:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize(
    "flags",
    [
        argparse.Namespace(),
        argparse.Namespace(samples_per_plugin=None),
        argparse.Namespace(samples_per_plugin=""),
        argparse.Namespace(samples_per_plugin=[("a", 1)]),
        argparse.Namespace(samples_per_plugin=MappingProxyType({})),
        Odd(),
        None,
    ],
    ids=["none set", "None", "text", "pairs", "read only", "raises", "no flags"],
)
def test_flags_of_any_kind(flags: Any) -> None:
    BNLensLoader().fix_flags(flags)


def test_a_plugin_module_that_is_broken(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "tb_bnlens.plugin.plugin", None)
    with caplog.at_level(logging.ERROR):
        assert BNLensLoader().load(base_plugin.TBContext()) is None
    assert "BN Lens tab is not available" in caplog.text


@pytest.mark.parametrize("context", [None, SimpleNamespace(), base_plugin.TBContext()])
def test_a_context_of_any_kind(context: Any) -> None:
    plugin = BNLensLoader().load(context)
    assert plugin is None or plugin.get_plugin_apps()


def test_the_loader_s_module_needs_nothing_but_tensorboard_s_base() -> None:
    """With NumPy, Werkzeug and our own heavier modules made impossible to import."""
    code = """
import sys
for name in ("numpy", "werkzeug", "tensorflow", "tb_bnlens.reader", "tb_bnlens.plugin.plugin", "tb_bnlens.history"):
    sys.modules[name] = None
from tb_bnlens.plugin.loader import BNLensLoader
import argparse
loader = BNLensLoader()
loader.define_flags(argparse.ArgumentParser())
loader.fix_flags(argparse.Namespace(samples_per_plugin={}))
assert loader.load(None) is None
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


FAULTS = {
    "a plugin module that cannot be imported": "import sys; sys.modules['tb_bnlens.plugin.plugin'] = None",
    "a plugin module that raises": (
        "import sys, types\n"
        "class Broken(types.ModuleType):\n"
        "    def __getattr__(self, name): raise ValueError('broken')\n"
        "sys.modules['tb_bnlens.plugin.plugin'] = Broken('broken')"
    ),
    "a package that lost its reader": "import sys; sys.modules['tb_bnlens.reader'] = None",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_tensorboard_starts_without_the_tab(fault: str, tmp_path: Path, viewer_python: str) -> None:
    write_run(tmp_path / "logs" / "exp", steps=2)
    # Python imports it at start, before TensorBoard looks for its plugins.
    (tmp_path / "sitecustomize.py").write_text(FAULTS[fault])
    with tensorboard(tmp_path / "logs", python=viewer_python, environment={"PYTHONPATH": str(tmp_path)}) as server:
        listing = server.get("data/plugins_listing").json
        assert "scalars" in listing
        assert metadata.PLUGIN_NAME not in listing
        assert "BN Lens tab is not available" in server.log


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_the_user_s_own_number_of_samples_wins(load_fast: str, tmp_path: Path, viewer_python: str) -> None:
    write_run(tmp_path / "exp", steps=40)
    flags = (f"--load_fast={load_fast}", "--samples_per_plugin=bn_lens=7", "--path_prefix=/some/prefix/")
    with tensorboard(tmp_path, *flags, python=viewer_python) as server:
        base = server.url if server.url.endswith("/some/prefix") else f"{server.url}/some/prefix"
        server.url = base
        wait_for(
            lambda: server.run_names() == ["exp"] and server.plugin("runs").json["runs"][0]["last_step"] == 40, "x"
        )
        assert len(server.plugin("series", run="exp", row="updates").frame["steps"]) == 7
        notes = server.plugin("overview", run="exp").json["notes"]
        assert any("keeps 7 records" in note for note in notes)
        entry = server.get("data/plugins_listing").json[metadata.PLUGIN_NAME]
        assert entry["loading_mechanism"]["module_path"] == "/some/prefix/data/plugin/bn_lens/index.js"
        assert server.get("data/plugin_entry.html", name="bn_lens").status == 200
        assert server.plugin("index.js").status == 200


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_by_default_all_records_are_kept(load_fast: str, tmp_path: Path, viewer_python: str) -> None:
    write_run(tmp_path / "exp", steps=1500, layers=1, every=2)
    with tensorboard(tmp_path, f"--load_fast={load_fast}", python=viewer_python) as server:
        wait_for(
            lambda: server.run_names() == ["exp"] and server.plugin("runs").json["runs"][0]["last_step"] == 1500, "x"
        )
        assert server.plugin("series", run="exp", row="updates").frame["steps"].tolist() == list(range(1, 1501))
        assert len(server.plugin("losses", run="exp").frame["steps"]) == 750
        assert server.plugin("overview", run="exp").json["notes"] == []
