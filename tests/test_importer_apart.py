"""Damaged Keras files and the child process that reads them: no file stops an import."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tb_bnlens.importer.apart import Apart
from tb_bnlens.importer.saved import CannotImport
from tb_bnlens.importer.series import read_series
from tests.conftest import ROOT

h5py = pytest.importorskip("h5py")

FAILING = """
import os, re, sys
sys.path[:] = sys.argv[1:]
from tb_bnlens.importer import apart, keras_files
read = keras_files.read_weights

def read_or_fail(path):
    if "loops" in path.name:
        re.match("(a+)+b", "a" * 64)  # in C, for years
    if "aborts" in path.name:
        os.abort()
    if "exits" in path.name:
        os._exit(9)
    return read(path)

keras_files.read_weights = read_or_fail
print("not an answer")
apart.serve()
"""
"""A child whose reader fails on some names, whatever version of libhdf5 it has."""


def save(path: Path) -> None:
    with h5py.File(path, "w") as file:
        variables = file.create_group("layers/batch_normalization/vars")
        variables.attrs["name"] = "norm"
        for i in range(4):
            variables[str(i)] = np.full(3, np.nan if i == 3 else i, np.float32)


def damage(path: Path) -> None:
    """Let libhdf5 1.14 loop: the free space in a heap of strings gets length 0, and it steps on by that."""
    raw = bytearray(path.read_bytes())
    at = raw.index(b"GCOL") + 16
    while (entry := struct.unpack_from("<HHIQ", raw, at))[0]:
        at += 16 + (entry[3] + 7) // 8 * 8
    struct.pack_into("<Q", raw, at + 8, 0)
    path.write_bytes(raw)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Good files of steps 1 and 9, and a short wait for others."""
    monkeypatch.setattr("tb_bnlens.importer.apart.PATIENCE", 2.0)
    (tmp_path / "run").mkdir()
    for step in (1, 9):
        save(tmp_path / "run" / f"step_{step}.weights.h5")
    return tmp_path / "run"


def test_a_damaged_file_does_not_stop_the_import(directory: Path) -> None:
    save(directory / "step_5.weights.h5")
    damage(directory / "step_5.weights.h5")
    series = read_series(directory, None, 2)
    assert series.steps == (1, 9)
    (note,) = series.notes
    assert note.startswith("step_5.weights.h5 was left out: it cannot be read as HDF5 (")


def test_a_child_that_loops_or_dies_costs_one_file(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tb_bnlens.importer.apart.START", FAILING)
    for name in ("step_2_loops", "step_3_aborts", "step_4_exits"):
        save(directory / f"{name}.weights.h5")
    series = read_series(directory, None, 2)
    assert series.steps == (1, 9)
    (layer,) = series.checkpoints[1].layers
    assert layer.name == "norm"
    np.testing.assert_array_equal([layer.mean, layer.spread], [[2.0] * 3, [np.nan] * 3])
    ends = ("did not end within 2 seconds", "ended with signal SIGABRT", "ended with exit code 9")
    for note, end in zip(series.notes, ends, strict=True):
        assert f"it cannot be read as HDF5 (reading it {end}, as with a damaged file). Copy it again" in note


def test_a_child_that_does_not_start_is_told(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tb_bnlens.importer.apart.START", "import os; os._exit(7)")
    with pytest.raises(CannotImport, match="its start ended with exit code 7; run bnlens import from a terminal"):
        read_series(directory, None, 2)
    monkeypatch.setattr(sys, "executable", str(directory / "python"))
    with pytest.raises(CannotImport, match=r"its start failed .*No such file"):
        read_series(directory, None, 2)


def test_a_plain_script_imports_and_nothing_comes_from_the_working_directory(directory: Path) -> None:
    """Without a ``__main__`` guard, and with a hostile name beside the checkpoints."""
    (directory / "h5py.py").write_text("raise SystemExit('imported')")
    script = directory.parent / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "from tb_bnlens.importer.series import read_series\n"
        "print(read_series(Path('.'), None, 2).steps)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=directory, check=False)
    assert (done.stdout, done.stderr) == ("(1, 9)\n", "")


def test_a_child_in_a_loop_does_not_outlive_a_parent_that_is_killed(directory: Path) -> None:
    save(directory / "loops.weights.h5")
    code = f"""
import threading
from pathlib import Path
from tb_bnlens.importer import apart
apart.PATIENCE, apart.START = 1.5, {FAILING!r}
with apart.Apart() as child:
    child.read_weights(Path({str(directory / "step_1.weights.h5")!r}))
    threading.Timer(0.5, lambda: print("loops", flush=True)).start()
    child.read_weights(Path({str(directory / "loops.weights.h5")!r}))
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"loops\n"
    parent.kill()
    # The child shares stderr, which ends when both have ended.
    with pytest.raises(subprocess.TimeoutExpired):
        parent.communicate(timeout=0.3)
    parent.communicate(timeout=60)


def test_the_child_ends_with_the_import(directory: Path) -> None:
    with Apart() as apart:
        apart.read_weights(directory / "step_1.weights.h5")
        child = apart._child
        assert child is not None and child.poll() is None
    assert child.poll() is not None
