"""What a hostile log directory or checkpoint can and cannot do: the claims of the README's security notes."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import textwrap
import tracemalloc
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.compat.proto import types_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.util import tensor_util

from tb_bnlens import metadata
from tb_bnlens.cli import main
from tb_bnlens.history import Layer
from tb_bnlens.reader import list_runs, open_logdir, read_run
from tb_bnlens.reader.access import checked_access
from tb_bnlens.reader.records import LARGEST_RECORD, decoded
from tb_bnlens.report.style import printable
from tests.conftest import ROOT, python_provider
from tests.fixtures.event_files import EventFile, layer_table
from tests.fixtures.runs import manifest, write_run
from tests.host.test_routes import PREFIX, body, client

MIB = 2**20

# Python reports what it is about to do to such a hook: every file that is opened, every process, every pickle.
WATCH = """
import sys
seen = []
watching = False

def watch(event, arguments):
    if not watching:
        return
    if event == "open":
        path, mode, flags = arguments
        if isinstance(mode, str) and set(mode) & set("wax+") or isinstance(flags, int) and flags & 3:
            seen.append((event, str(path)))
    elif event.startswith(("subprocess.", "os.", "socket.", "pickle.", "shutil.")) or event in FORBIDDEN:
        if event not in ("os.listdir", "os.scandir", "os.walk", "os.fwalk"):
            seen.append((event, str(arguments)[:100]))

# Not "compile", which parsing without running is too; what is compiled to be run comes by "exec".
FORBIDDEN = {"exec", "marshal.loads"}
sys.addaudithook(watch)
"""


def watched(code: str, *arguments: str) -> list[list[str]]:
    """What the part of the code after WATCHING did that it should not: written, started, connected, unpickled."""
    before, after = textwrap.dedent(code).split("WATCHING\n")
    script = f"{WATCH}\n{before}\nwatching = True\n{after}\nwatching = False\nimport json\nprint(json.dumps(seen))"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


def contents(directory: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


ASK = """
import sys
from tensorboard.plugins import base_plugin
from werkzeug.test import Client
from tensorboard.backend import application
from tb_bnlens.plugin.loader import BNLensLoader
from tb_bnlens.cli import main
from tb_bnlens.reader import open_logdir
from tb_bnlens.report.style import printable

def everything():
    data = open_logdir(sys.argv[1])
    plugin = BNLensLoader().load(base_plugin.TBContext(data_provider=data))
    client = Client(application.TensorBoardWSGI([plugin], data_provider=data))
    for route in ("runs", "overview?run=exp", "losses?run=exp", "series?run=exp&row=updates", "layer?run=exp&layer=0",
                  "channels?run=exp&layer=0", "index.js", "index.css", "nothing"):
        client.get("/data/plugin/bn_lens/" + route)
    main(["report", sys.argv[1]])
    main(["report", sys.argv[1], "--json"])

everything()  # what is imported late is imported now
"""


def test_viewing_writes_nothing_and_starts_nothing(tmp_path: Path) -> None:
    write_run(tmp_path / "exp", steps=30)
    before = contents(tmp_path)
    assert watched(f"{ASK}WATCHING\neverything()\n", str(tmp_path)) == []
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("deed", "event"),
    [
        ("open(sys.argv[1] + '/new', 'w')", "open"),
        ("__import__('os').remove(sys.argv[1] + '/gone')", "os.remove"),
        ("__import__('os').system('true')", "os.system"),
        ("__import__('pickle').loads(b'cos\\ngetcwd\\n.')", "pickle.find_class"),
        ("eval('1')", "exec"),
    ],
)
def test_what_is_watched_would_be_seen(deed: str, event: str, tmp_path: Path) -> None:
    (tmp_path / "gone").touch()
    assert event in {kind for kind, _ in watched(f"import sys, os, pickle\nWATCHING\n{deed}\n", str(tmp_path))}


# --- memory ---------------------------------------------------------------------------------------------


def claiming(*shape: int, dtype: int = types_pb2.DT_FLOAT) -> Any:
    """A tensor of twenty bytes that claims any number of values."""
    proto = tensor_util.make_tensor_proto(np.float32(1))
    proto.dtype = dtype
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


def peak_of_reading(logdir: Path) -> tuple[int, tuple[str, ...]]:
    """Peak memory of the report on a log directory in bytes, and the problems that it names."""
    data = open_logdir(logdir)
    tracemalloc.start()
    try:
        problems = tuple(p for run in list_runs(data) for p in read_run(data, "", run).problems)
        return tracemalloc.get_traced_memory()[1], problems
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "tag", [metadata.LAYERS_TAG, metadata.LOSSES_TAG, metadata.MANIFEST_TAG, metadata.EVIDENCE_TAG]
)
def test_a_tensor_that_claims_more_than_it_holds(tmp_path: Path, tag: str) -> None:
    file = write_run(tmp_path / "exp", steps=5)
    file.tensor(tag, None, 6, proto=claiming(2**20, 64))
    peak, problems = peak_of_reading(tmp_path)
    assert any("1 records hold tensors that cannot be decoded" in problem for problem in problems)
    assert peak < 16 * MIB, "it claims 256 MiB"
    with pytest.raises(ValueError, match="claims 67108864 values"):
        decoded(claiming(2**20, 64))


@pytest.mark.parametrize("open_", [open_logdir, python_provider], ids=["files", "python"])
def test_rows_without_columns(tmp_path: Path, open_: Any) -> None:
    """A tensor without data: every row of it would be filled with NaN."""
    file = EventFile(tmp_path / "exp" / metadata.RUN_SUFFIX)
    proto = tensor_util.make_tensor_proto(np.zeros((0, 0), np.float32))
    proto.tensor_shape.dim[0].size = 2**20
    file.tensor(metadata.LAYERS_TAG, None, 1, proto=proto)
    file.tensor(metadata.LOSSES_TAG, None, 1, proto=proto)
    file.tensor(metadata.channels_tag(0), None, 1, proto=proto, plugin=metadata.CHANNELS_PLUGIN_NAME)
    data = open_(tmp_path)
    tracemalloc.start()
    try:
        history = read_run(data, "", "exp")
        assert client(data).get(f"{PREFIX}channels?run=exp&layer=0").status_code == 404
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum("1 layer record was left out" in p or "1 probe was left out" in p for p in history.problems) == 2
    assert peak < 16 * MIB, "filled up it is 220 MiB"


def test_a_record_longer_than_any_of_ours_is_passed_over(tmp_path: Path) -> None:
    """A sparse file can have any length without a byte on disk."""
    file = write_run(tmp_path / "exp", steps=5)
    length = (LARGEST_RECORD + 1).to_bytes(8, "little")
    with file.path.open("ab") as sparse:
        sparse.write(length + masked_crc32c(length).to_bytes(4, "little"))
        sparse.truncate(sparse.tell() + LARGEST_RECORD + 1 + 4)
    file.layers(layer_table(3, momentum=0.9), 6)
    peak, problems = peak_of_reading(tmp_path)
    assert problems == ()
    assert peak < 16 * MIB
    assert read_run(open_logdir(tmp_path), "", "exp").last_step == 6


# --- files that are no files ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pipe", "device", "broken link"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    file = write_run(tmp_path / "exp", steps=5)
    path = file.path.with_name("events.out.tfevents.2")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else tmp_path / "nowhere")
    done = subprocess.run(
        [sys.executable, "-m", "tb_bnlens", "report", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "(step 5 of 6, 3 BatchNorm layers)" in done.stdout
    said = "could not be read" if kind == "broken link" else "is no regular file"
    assert f"events.out.tfevents.2 {said}" in done.stdout


# --- code that users copy -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "model.layers[3]",
        "model.get_layer('backbone').get_layer('block_1/bn')",
        "model.blocks['a b'].norm",
        "model.get_layer('it\\'s').x[0][1]",
    ],
)
def test_what_the_recorder_writes_passes(text: str) -> None:
    assert ast.dump(ast.parse(checked_access(text))) == ast.dump(ast.parse(text))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('echo owned')",
        "model.get_layer(__import__('os').getcwd())",
        "model.layers[print(1)]",
        "model.__class__",
        "model._functions",
        "model.save('/etc/passwd')",
        "model.get_layer('a', index=0)",
        "model.get_layer(*'a')",
        "model.layers[0:2]",
        "model.layers[0]\nimport os",
        "model.layers[0],\n__import__('os')",
        "other.layers[0]",
        "model.get_layer(3)",
        "get_layer('x')",
        "(lambda: model)()",
        "model if 1 else model",
        "model." + "a." * 5000 + "b",
        "model" + "[" * 500,
        "(" * 900 + "model" + ")" * 900,
        "model" + ".a" * 900,
        "",
        "\x00",
        None,
        ["model"],
    ],
    ids=lambda text: str(text)[:30] or "empty",
)
def test_nothing_else_does(text: object) -> None:
    # A chain of 900 attributes is harmless; Python may refuse to write it out.
    assert checked_access(text) in ("", text if text == "model" + ".a" * 900 else "")


def test_comments_and_line_breaks_are_left_out() -> None:
    assert checked_access("(model # all clear\n  .layers[0])  # \u202e") == "model.layers[0]"


def test_a_hostile_expression_is_in_no_fix(tmp_path: Path) -> None:
    """On a record whose fix names layers by such expressions: their moving statistics are not finite."""
    for name, access in (("good", "model.layers[7]"), ("hostile", "__import__('os').system('owned')")):
        file = EventFile(tmp_path / name / metadata.RUN_SUFFIX)
        layers = [asdict(Layer(0, "bn", 4, 0.9, 1e-3, access=access))]
        file.manifest({**asdict(manifest(layers=1)), "layers": layers}, 0)
        for step in range(1, 9):
            file.layers(layer_table(1, state=1, updates=step, momentum=0.9, channels_nonfinite=2), step)
    data = open_logdir(tmp_path)
    good, hostile = (body(client(data).get(f"{PREFIX}overview?run={name}")) for name in ("good", "hostile"))
    assert any("model.layers[7]" in f["rescue"] + f["fix"] for f in good["findings"])
    assert all("owned" not in f["rescue"] + f["fix"] for f in hostile["findings"])


# --- the terminal ---------------------------------------------------------------------------------------


def test_names_do_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "bn\x1b]0;owned\x07\x1b[2J\u202e\x9b1m\r"
    run = "exp\x1b[8m"
    file = EventFile(tmp_path / run / metadata.RUN_SUFFIX)
    body = asdict(manifest(layers=1))
    file.manifest({**body, "layers": [{"name": hostile, "channels": 4, "momentum": 0.999}], "notes": [hostile]}, 0)
    file.layers(layer_table(1, state=1, updates=9, momentum=0.999, distance_rms=2.0, error_p95=9.0), 9)
    assert main(["report", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "\\x1b]0;owned\\x07" in shown and "exp\\x1b[8m" in shown
    assert all(character == "\n" or character.isprintable() for character in shown)
    assert main(["report", str(tmp_path), "--json"]) == 0
    # JSON keeps the name, spelled in ASCII.
    written = capsys.readouterr().out
    assert written.isascii() and json.loads(written)["runs"][0]["layers"][0]["name"] == hostile


def test_a_run_whose_directory_is_no_text(tmp_path: Path) -> None:
    """Bytes of a file name that are not UTF-8 cannot be printed unchanged."""
    write_run(tmp_path / os.fsdecode(b"exp\xff"), steps=3)
    done = subprocess.run(
        [sys.executable, "-m", "tb_bnlens", "report", str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "exp\\udcff  (step 3 of 4" in done.stdout


def test_other_scripts_are_printed_as_they_are() -> None:
    assert printable("層 ü ­😀\n") == "層 ü \\xad😀\n"
    assert printable("a\u2028b\xa0c\u3000d") == "a\\u2028b\\xa0c\\u3000d", "neither lines nor spaces of ours"


# --- checkpoints ----------------------------------------------------------------------------------------


def weights(path: Path, member: Any = None) -> None:
    """A ``.weights.h5`` with one BatchNorm layer, whose moving mean is made by ``member(group, name)``."""
    import h5py

    with h5py.File(path, "w") as file:
        variables = file.create_group("layers/batch_normalization/vars")
        for i in range(4):
            variables[str(i)] = np.ones(4, np.float32)
        if member is not None:
            del variables["2"]
            member(variables, "2")


def test_importing_a_model_runs_nothing_of_it(tmp_path: Path) -> None:
    """A Lambda layer, a registered class and a module to import: what ``load_model`` would have to be kept from."""
    pytest.importorskip("h5py")
    owned = tmp_path / "owned"
    call = f"__import__('pathlib').Path({str(owned)!r}).touch()"
    norm = {"name": "batch_normalization", "momentum": 0.9, "epsilon": 1e-3, "axis": -1}
    norm |= {"moving_mean_initializer": {}, "moving_variance_initializer": {}}
    code = {"class_name": "__lambda__", "config": {"code": call, "defaults": None, "closure": None}}
    layers = [
        {"class_name": "BatchNormalization", "config": norm},
        {"class_name": "Lambda", "config": {"name": "lambda", "function": code, "arguments": call}},
        {"module": "os", "class_name": "system", "config": {"name": "x", "command": f"touch {owned}"}},
        {"module": f"{call}", "class_name": call, "registered_name": call, "config": {"name": call}},
    ]
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": layers}, "module": "os", "build": call}
    (tmp_path / "in").mkdir()
    weights(tmp_path / "w.h5")
    for step in (10, 20):
        with zipfile.ZipFile(tmp_path / "in" / f"step_{step}.keras", "w") as archive:
            archive.writestr("config.json", json.dumps(config))
            archive.writestr("metadata.json", json.dumps({"keras_version": call}))
            archive.write(tmp_path / "w.h5", "model.weights.h5")
    done = watched(
        """
        import sys
        from pathlib import Path
        from tb_bnlens.importer.keras_files import read_keras  # what the importer's child process calls
        from tb_bnlens.importer.series import read_series
        series = read_series(Path(sys.argv[1]), None, 2)
        files = [checkpoint.path for checkpoint in series.checkpoints]
        first = read_keras(files[0])
        WATCHING
        found = [read_keras(path) for path in files]
        watching = False
        assert len(found) == 2 and [l.name for l in found[0].layers], found
        assert not {name.split(".")[0] for name in sys.modules} & {"keras", "tensorflow"}, "nothing can deserialize"
        """,
        str(tmp_path / "in"),
    )
    assert done == []
    assert not owned.exists()


@pytest.mark.parametrize("kind", ["link to a file", "link inside", "raw bytes", "virtual"])
def test_a_checkpoint_that_points_to_other_files_is_left_out(tmp_path: Path, kind: str) -> None:
    h5py = pytest.importorskip("h5py")
    from tb_bnlens.importer.keras_files import read_weights
    from tb_bnlens.importer.saved import BadCheckpoint

    secret = tmp_path / "secret"
    secret.write_bytes(np.arange(4, dtype=np.float32).tobytes())
    weights(tmp_path / "other.h5")

    def elsewhere(variables: Any, name: str) -> None:
        if kind == "link to a file":
            variables[name] = h5py.ExternalLink(str(tmp_path / "other.h5"), "layers/batch_normalization/vars/2")
        elif kind == "link inside":
            variables[name] = h5py.SoftLink("/layers/batch_normalization/vars/3")
        elif kind == "raw bytes":
            variables.create_dataset(name, (4,), np.float32, external=[(str(secret), 0, 16)])
        else:
            layout = h5py.VirtualLayout((4,), np.float32)
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "layers/batch_normalization/vars/2", (4,))
            variables.create_virtual_dataset(name, layout)

    weights(tmp_path / "good.weights.h5")
    assert len(read_weights(tmp_path / "good.weights.h5").layers) == 1
    weights(tmp_path / "hostile.weights.h5", elsewhere)
    with pytest.raises(BadCheckpoint, match="link" if "link" in kind else "another file"):
        read_weights(tmp_path / "hostile.weights.h5")
