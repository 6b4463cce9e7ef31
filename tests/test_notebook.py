"""The notebook of ``demo/`` runs top to bottom, and its reader sees what its text says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from tb_bnlens.reader import list_runs, open_logdir
from tests.conftest import ROOT

NOTEBOOK = ROOT / "demo" / "check_and_rescue.ipynb"


def test_it_runs_and_says_what_its_text_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell.get("outputs") for cell in cells)
    monkeypatch.chdir(tmp_path)
    # Without its network, as the notebook promises.
    monkeypatch.setattr("socket.socket.connect", _refused)
    space: dict[str, Any] = {}
    # Only the last cell has commands of IPython, which this environment does without.
    *cells_of_python, magic = codes
    for code in cells_of_python:
        exec(compile(code, str(NOTEBOOK), "exec"), space)
    assert magic.splitlines() == ["%load_ext tensorboard", "%tensorboard --logdir runs"]
    assert {run.name for run in list_runs(open_logdir("runs"))} == {"momentum-0.9", "momentum-0.999"}

    found, model, better = space["found"], space["model"], space["better"]
    assert space["evaluated"] > 2 * space["trained"]
    assert [f["rule"] for f in found.findings][:1] == ["momentum-too-high"] and found.severity == "error"
    assert "recalibrate" in found._repr_html_()
    rescued = model.evaluate(space["x"], space["y"], verbose=0)[0]
    assert rescued < space["evaluated"] / 2
    assert rescued == pytest.approx(found.findings[0]["rescue_loss"], rel=0.5)
    assert better.evaluate(space["x"], space["y"], verbose=0)[0] < space["evaluated"] / 2
    tf.keras.backend.clear_session()


def _refused(*_: Any) -> None:
    raise OSError("no network")
