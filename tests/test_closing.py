"""The line at the end of ``fit``."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tb_bnlens import BNLens, Recorder, closing
from tb_bnlens.closing import closing_line
from tests.fixtures.runs import write_run


def test_a_run_that_is_broken(tmp_path: Path) -> None:
    write_run(tmp_path / "my run", momentum=0.999, steps=40)
    line = closing_line(str(tmp_path / "my run"))
    assert "\n" not in line and len(line) < 600
    assert line.startswith(("BN Lens: X Inference loss is", "BN Lens: ! Inference loss is"))
    assert "Momentum too high for this run." in line and "Rescue: tb_bnlens.recalibrate(model, data" in line
    assert line.endswith(f"tensorboard --logdir '{tmp_path / 'my run'}'")


def test_a_note_is_named_where_nothing_is_severe() -> None:
    note = {"status": "fail", "silenced": False, "explained_by": None, "severity": "info", "title": "Never updated"}
    assert closing._cause({"findings": [note]}) == ["Note: Never updated."]
    assert closing._cause({"findings": [{**note, "silenced": True}]}) == []


@pytest.mark.parametrize("package", ["tb_bnlens", "tb_bnlens.torch", "tb_bnlens.flax"])
def test_the_rescue_is_named_in_every_framework(package: str) -> None:
    call, promise = f"{package}.recalibrate(model, data, batches=200)", "inference loss 1 (measured on 8 batches)"
    rescue = f"import {package}\n\n{call}\n# {promise}\n"
    worst = {"status": "fail", "silenced": False, "explained_by": None, "severity": "error", "title": "T"}
    assert closing._cause({"findings": [{**worst, "rescue": rescue}]}) == ["T.", f"Rescue: {call}, {promise}."]


def test_a_record_that_is_not_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert closing_line("gs://b/run") == "BN Lens: recorded. To see the verdict: tensorboard --logdir gs://b/run"
    write_run(tmp_path / "run", steps=3)
    monkeypatch.setattr(closing, "MOST_BYTES", 10)
    assert closing_line(str(tmp_path / "run")).startswith("BN Lens: recorded. To see the verdict: tensorboard")


def printed(lens: Any, verbose: int = 0) -> str:
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        model.fit(x, x[:, :1], batch_size=16, epochs=2, verbose=verbose, callbacks=[lens])
    return out.getvalue()


def test_fit_ends_with_the_line(tmp_path: Path) -> None:
    # A quiet fit keeps it: the user passed the lens.
    quiet = printed(BNLens(str(tmp_path / "a")))
    assert quiet == closing_line(str(tmp_path / "a")) + "\n"
    last = printed(BNLens(str(tmp_path / "b")), verbose=1).split("\n")[-2:]
    assert last == [closing_line(str(tmp_path / "b")), ""], "a separate line, below the progress bar"


def test_a_loop_ends_with_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    for verbose in (1, 0):
        directory = str(tmp_path / str(verbose))
        with Recorder(model, directory, verbose=verbose) as lens:
            lens.record(np.ones((8, 4), np.float32), np.ones((8, 1), np.float32))
        lens.close()
        assert capsys.readouterr().out == (closing_line(directory) + "\n") * verbose


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "\\u5c64"), ("cp1252", "\\u5c64"), ("utf-8", "層")])
def test_any_console(encoding: str, shown: str, tmp_path: Path) -> None:
    write_run(tmp_path / "層", steps=5)
    console = io.TextIOWrapper(io.BytesIO(), encoding)
    with contextlib.redirect_stdout(console):
        closing.print_closing_line(str(tmp_path / "層"))
    assert shown in console.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


def test_verbose_0_prints_nothing(tmp_path: Path) -> None:
    assert printed(BNLens(str(tmp_path), verbose=0)) == ""


def test_a_fault_in_it_does_not_end_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_log_dir: str) -> str:
        raise OSError("the disk is gone")

    monkeypatch.setattr(closing, "closing_line", broken)
    with pytest.warns(UserWarning, match="leaves out the line at the end of training: OSError: the disk is gone"):
        assert printed(BNLens(str(tmp_path))) == ""
